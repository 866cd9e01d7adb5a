"""The command line: `factform VERB …`.

Knows nothing of how a verb does its work. Building it must not import torch, lancedb or scipy: `--help` is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; without `arguments` those of this process."""
    from factform.cli.run import run

    return run(sys.argv[1:] if arguments is None else arguments)
