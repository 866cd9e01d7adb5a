"""A process that makes the index anew and is killed: `rebuild_child.py FOLDER FAILPOINT`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from other_encoder import OtherEncoder

from factform.facts import rebuild
from factform.facts.store import DataLayer


def main(folder: str, failpoint: str) -> None:
    rebuild.GROUP_DOCUMENTS, rebuild.LAST = 3, 0
    with DataLayer.open(Path(folder), OtherEncoder(), chunk_tokens=40, for_rebuild=True) as layer:
        os.environ["FACTFORM_FAILPOINT"] = failpoint
        layer.rebuild(background=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
