"""What a store is put under while faults happen: adds, updates, removals, the same again, other metadata.

Knows nothing of faults. Each thread has documents of its own, so that the order of what was acknowledged is known.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from factform.facts import tableversions
from factform.facts.store import DataLayer
from factform.records import Receipt

from .encoder import WordEncoder
from .invariants import CHUNK_TOKENS, Wanted, acknowledge, begin

Say = Callable[[str], None]

WORDS = [
    f"{a}{b}{c}" for a in ("ba", "ke", "li", "mo", "nu") for b in ("ra", "te", "si", "do") for c in ("n", "s", "x")
]


tableversions.MANY, tableversions.KEPT, tableversions.REST_S = 4, 4, 0.2
"""Old versions of the index's table go every few writes, so that faults strike there as often as elsewhere."""


def opened(folder: Path, wait_s: float = 30.0) -> DataLayer:
    return DataLayer.open(folder, WordEncoder(), chunk_tokens=CHUNK_TOKENS, wait_s=wait_s)


def body(draw: random.Random, document: str) -> str:
    """A text of one to five chunks; its first word is in no other text, so that a search can tell it."""
    words = draw.choices(WORDS, k=draw.choice([8, 30, 70, 150]))
    return f"{document}v{draw.getrandbits(40):x} " + " ".join(words)


def change(layer: DataLayer, draw: random.Random, mine: list[str], state: dict[str, Wanted | None], say: Say) -> None:
    """One operation on some of the documents `mine`; `state` is what they hold, as far as this thread knows."""
    there = [document for document in mine if state.get(document)]
    kind = draw.choices(["add", "batch", "remove", "again", "metadata"], [5, 2, 2, 1, 2])[0]
    if kind in ("remove", "again", "metadata") and not there:
        kind = "add"
    if kind == "remove":
        changes: dict[str, Wanted | None] = dict.fromkeys(draw.sample(there, min(len(there), draw.choice([1, 1, 3]))))
    elif kind == "again":
        document = draw.choice(there)
        changes = {document: state[document]}
    elif kind == "metadata":
        document = draw.choice(there)
        held = state[document]
        assert held is not None
        changes = {document: Wanted(held.body, held.year + 1)}
    else:
        chosen = draw.sample(mine, 1 if kind == "add" else min(4, len(mine)))
        changes = {document: Wanted(body(draw, document), 2000) for document in chosen}
    apply(layer, changes, say)
    state.update(changes)


def apply(layer: DataLayer, changes: dict[str, Wanted | None], say: Say) -> list[Receipt]:
    """Make `changes` true; says so before, and again when the receipts are there."""
    say(begin(changes))
    receipts = layer.remove([document for document, wanted in changes.items() if wanted is None])
    added = [wanted.source(document) for document, wanted in changes.items() if wanted is not None]
    receipts += layer.add(added) if added else []
    good = {receipt.document for receipt in receipts if receipt.status != "failed"}
    say(acknowledge({document: wanted for document, wanted in changes.items() if document in good}))
    return receipts
