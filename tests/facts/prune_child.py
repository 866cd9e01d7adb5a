"""A process that prunes and is killed: `prune_child.py FOLDER FAILPOINT`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hash_encoder import HashEncoder

from factform.facts.prune import Policy
from factform.facts.store import DataLayer


def main(folder: str, failpoint: str) -> None:
    with DataLayer.open(Path(folder), HashEncoder()) as layer:
        os.environ["FACTFORM_FAILPOINT"] = failpoint
        layer.pruner().prune(Policy(keep_versions=1), frozenset)


if __name__ == "__main__":
    main(*sys.argv[1:])
