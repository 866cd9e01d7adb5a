"""A process that writes and is killed: `crash_child.py FOLDER ACTION FAILPOINT`. Prints each receipt it was given."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hash_encoder import HashEncoder

from factform.facts import index
from factform.facts.store import DataLayer
from factform.records import Receipt, Source


def text(document: str, body: str) -> Source:
    return Source(document, body.encode(), f"{document}.txt")


def say(receipts: list[Receipt]) -> None:
    for receipt in receipts:
        sys.stdout.write(f"{receipt.document} {receipt.status} {receipt.version}\n")
        sys.stdout.flush()


def main(folder: str, action: str, failpoint: str) -> None:
    if action == "reopen":
        os.environ["FACTFORM_FAILPOINT"] = failpoint
        DataLayer.open(Path(folder), HashEncoder())
        return
    if failpoint.startswith("after_optimize"):
        index.FRAGMENTS = -1000  # a few documents are not tidied otherwise
    layer = DataLayer.open(Path(folder), HashEncoder())
    if action == "stream":
        for i in range(100_000):
            say(layer.add([text(f"d{i % 7}", f"round {i} of zebra"), text(f"n{i}", f"number {i}")]))
    say(layer.add([text("a", "old zebra"), text("b", "bear"), text("gone", "panther")]))
    os.environ["FACTFORM_FAILPOINT"] = failpoint
    if action == "add":
        say(layer.add([text("a", "new giraffe"), text("c", "cat")]))
    elif action == "remove":
        say(layer.remove(["gone"]))
    elif action == "rebuild":
        layer.rebuild()


if __name__ == "__main__":
    main(*sys.argv[1:])
