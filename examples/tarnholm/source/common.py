"""What a generated document is made of: facts, sentences, sections, and questions about the facts.

Knows nothing of file formats or of what Tarnholm sells.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

UNITS = (
    "EUR", "EUR_m", "percent", "hours", "days", "weeks", "months", "years",
    "bar", "m3_per_h", "kg", "kW", "dB", "mm", "celsius", "people",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One figure stated in one document. `questions` all have this figure as their only right answer."""

    entity: str
    attribute: str
    value: str
    unit: str
    period: str
    quote: str
    questions: tuple[str, ...]
    table: bool = False


@dataclass(frozen=True)
class Table:
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """`parts` are paragraphs (strings), bullet lists (tuples of strings) or tables."""

    heading: str
    parts: tuple[str | tuple[str, ...] | Table, ...]


@dataclass(frozen=True)
class Miss:
    """A question that looks answerable but is not. `absent` are words none of `documents` may contain."""

    questions: tuple[str, ...]
    documents: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    id: str
    kind: str
    title: str
    byline: str
    sections: tuple[Section, ...]
    facts: tuple[Fact, ...]
    misses: tuple[Miss, ...] = ()
    split: str = "examples"


@dataclass
class Draw:
    """A seeded source of choices that avoids repeating itself: each pool is dealt like a pack of cards."""

    rng: random.Random
    packs: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    here: set[str] = field(default_factory=set)

    def one(self, pool: Sequence[str]) -> str:
        pack = self.packs.setdefault(tuple(pool), [])
        if not pack:
            pack.extend(pool)
            self.rng.shuffle(pack)
        return pack.pop()

    def some(self, pool: Sequence[str], count: int) -> list[str]:
        """`count` different entries (fewer when the pool is smaller), new to this document if the pool allows."""
        chosen: list[str] = []
        for fresh in (True, False):
            for _ in range(3 * len(pool)):
                if len(chosen) == min(count, len(pool)):
                    break
                entry = self.one(pool)
                if entry not in chosen and not (fresh and entry in self.here):
                    chosen.append(entry)
        self.here.update(chosen)
        return chosen

    def unsaid(self, make: Callable[[], str]) -> str:
        """A sentence from `make` that was not written before, so that a quote stands in one document only."""
        for _ in range(50):
            sentence = make()
            if sentence not in self.said:
                self.said.add(sentence)
                return sentence
        raise SystemExit(f"every wording was used before, the last one was {sentence!r}; add templates")


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def plain(number: str) -> str:
    """The contract's form of a number as printed: no thousands separator."""
    return number.replace(",", "")


def row_quote(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def interleave(draw: Draw, facts: list[str], fillers: list[str]) -> str:
    """One paragraph of fact sentences, kept in order, among filler sentences; every other one opens with a filler."""
    cut = draw.rng.randrange(2) if facts else 1
    opening, rest = fillers[:cut], fillers[cut:]
    slots: list[list[str]] = [[] for _ in range(len(facts) + 1)]
    for sentence in rest:
        slots[draw.rng.randrange(len(slots))].append(sentence)
    out = opening + slots[0]
    for fact, after in zip(facts, slots[1:], strict=True):
        out += [fact, *after]
    return " ".join(out)


def sentences(text: str) -> list[str]:
    """Rough sentence split, good enough for the generator's own checks."""
    return [s for s in re.split(r"(?<=[.!?])\s+", text) if s]
