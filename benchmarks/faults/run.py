"""Make faults on purpose and count what is lost: `python benchmarks/faults/run.py --kills 1000 --images 500`.

Writes a report with counts, times and the environment, and fails when anything was lost, twice there or partly visible.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from faults.main import main

if __name__ == "__main__":
    main()
