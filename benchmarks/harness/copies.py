"""A judged set in which some documents stand twice, with small edits made by rule, and what a search shows of them.

Knows nothing of stores. Four kinds of edits leave a document what it is; the fifth changes what it says: no copy.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from factform.facts.distinct import words_of
from factform.records import Hit, Source
from harness.judged import JudgedSet

SHARE = 0.2
CHANGED = "figure or negation changed"
RUN, ALIKE = 5, 0.8


def set_otherwise(text: str) -> str:
    """The same words: other case, commas gone, a line for each sentence."""
    return text.replace(",", "").replace(". ", ".\n").upper()


def sentence_in_front(text: str) -> str:
    return f"This is the copy that was kept in the archive. {text}"


def words_left_out(text: str) -> str:
    """Every 25th word is missing, unless it has a digit or denies something."""
    words = text.split(" ")
    return " ".join(w for i, w in enumerate(words, 1) if i % 25 or w.lower() in {"no", "not"} or re.search(r"\d", w))


def changed(text: str) -> str:
    """Every number is one more; where there is none, something is denied."""
    other = re.sub(r"\d+", lambda match: str(int(match[0]) + 1), text)
    return other if other != text else re.sub(r"\b(is|are|was|were|can|may|has)\b", r"\1 not", text, count=3)


KINDS: Mapping[str, Callable[[str], str]] = {
    "the same": str,
    "set otherwise": set_otherwise,
    "a sentence in front": sentence_in_front,
    "words left out": words_left_out,
    CHANGED: changed,
}


@dataclass(frozen=True)
class Copies:
    """`of` names of each copy its original and the kind of edit. What an edit left unchanged has no copy."""

    judged: JudgedSet
    of: Mapping[str, tuple[str, str]]

    def original(self, document: str) -> str:
        """What a document is a copy of; itself where it is none, or says something else."""
        model, kind = self.of.get(document, (document, ""))
        return document if kind == CHANGED else model


def with_copies(judged: JudgedSet) -> Copies:
    """A fifth of the documents once more, the kinds of edits in turn."""
    some = random.Random(0).sample(sorted(judged.sources, key=lambda s: s.document), int(SHARE * len(judged.sources)))
    made: list[Source] = []
    of: dict[str, tuple[str, str]] = {}
    for number, source in enumerate(some):
        kind = list(KINDS)[number % len(KINDS)]
        text = source.data.decode("utf-8")
        edited = KINDS[kind](text)
        if edited == text and kind != "the same":
            continue
        name = f"{source.document}-copy"
        of[name] = (source.document, kind)
        made.append(replace(source, document=name, data=edited.encode("utf-8")))
    return Copies(replace(judged, name=f"{judged.name}_copies", sources=(*judged.sources, *made)), of)


def loosely_apart(hits: Sequence[Hit]) -> list[Hit]:
    """`hits` without those that share four fifths of their runs of five words with a better one (of the shorter)."""
    kept: list[tuple[Hit, frozenset[tuple[str, ...]]]] = []
    for hit in hits:
        words = words_of(hit.chunk.text).split()
        runs = frozenset(zip(*(words[i:] for i in range(min(RUN, len(words)))), strict=False))
        if not runs or not any(len(runs & other) >= ALIKE * min(len(runs), len(other)) for _, other in kept):
            kept.append((hit, runs))
    return [hit for hit, _ in kept]


def places(hits: Sequence[Hit], copies: Copies) -> list[str]:
    """Documents where they come first, by their originals; a document whose original came before is worth nothing."""
    order = dict.fromkeys(hit.chunk.document for hit in hits)
    seen: set[str] = set()
    found = []
    for document in order:
        original = copies.original(document)
        found.append(f"{document} again" if original in seen else original)
        seen.add(original)
    return found


def lost(before: Sequence[Hit], after: Sequence[Hit], copies: Copies) -> tuple[int, int]:
    """Of the passages of documents that say something else, among the ten best `before`: how many there are where their
    original is among them as well, and how many of those documents, original or changed, are gone `after`."""
    head = {hit.chunk.document for hit in before[:10]}
    pairs = [(name, model) for name, (model, kind) in copies.of.items() if kind == CHANGED and {name, model} <= head]
    left = {hit.chunk.document for hit in after}
    return len(pairs), sum(not {name, model} <= left for name, model in pairs)
