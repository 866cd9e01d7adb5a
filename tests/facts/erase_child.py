"""A process that erases and is killed before a step: `erase_child.py FOLDER DOCUMENT STEP`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from hash_encoder import HashEncoder

from factform.facts.store import DataLayer


def main(folder: str, document: str, fatal: str) -> None:
    def step(name: str) -> None:
        if name == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    with DataLayer.open(Path(folder), HashEncoder()) as layer:
        eraser = layer.eraser()
        eraser.begin([document])
        eraser.erase_bytes(step)
        eraser.forget(step)


if __name__ == "__main__":
    main(*sys.argv[1:])
