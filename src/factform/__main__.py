"""`python -m factform`: the command line without its script.

Knows nothing of verbs.
"""

import sys

from factform.cli import main

if __name__ == "__main__":
    sys.exit(main())
