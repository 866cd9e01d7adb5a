"""Which rows a question finds: by its words (BM25) and by its vector, each as if only the visible rows were there.

Knows nothing of tables, files or how scores are combined. Lance's and every other kept library's BM25 counts all rows
of an index; here number of rows, mean length and frequencies are those of the visible rows, so a row that a reader may
not see changes no score of what it may see. Formula: Robertson and Zaragoza 2009, in Lucene's form of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from factform.facts.segment import Array, Columns, Segment, Tail
from factform.facts.words import FUNCTION_WORDS, LONG, PART, SPACELESS, Asked, digest, literal, stem
from factform.int8.build import native

K1 = 1.5
B = 0.75

COMPOUND = 0.25
"""Weight of a compound that a word is part of, and of the parts of a compound asked for."""

MOST_COMPOUNDS = 32
ENDINGS = ("", "s", "n", "e", "en", "es", "er", "em", "ern")
LINKS = ("", "s", "n", "es", "en")
SCANNED = 8192
"""Numbers of a vector that `factform_scan` takes, at most."""

QUERY_STEPS = 16_383
"""Steps in which `factform_scan` takes the entries of a question's vector, up to the largest."""

BLOCK = 4096
BLOCKED = 256


@dataclass(frozen=True)
class View:
    """The rows of one table version: those of a segment, then the first of a tail."""

    version: int
    generation: int
    base: Segment
    tail: Tail
    added: int

    @property
    def parts(self) -> tuple[tuple[Segment | Tail, Columns, int], ...]:
        """Each part with its rows and the number of rows in front of it."""
        return (
            (self.base, self.base.columns, 0),
            (self.tail, self.tail.columns.rows(slice(0, self.added)), len(self.base.columns)),
        )

    def column(self, name: str) -> Array:
        first, second = (getattr(columns, name) for _, columns, _ in self.parts)
        return np.concatenate([first, second]) if len(second) else first

    def at(self, name: str, rows: Array) -> Array:
        """Entries of a column for a few rows."""
        front = len(self.base.columns)
        made = np.empty(
            (len(rows), *getattr(self.base.columns, name).shape[1:]), getattr(self.base.columns, name).dtype
        )
        low = rows < front
        made[low] = getattr(self.base.columns, name)[rows[low]]
        made[~low] = getattr(self.tail.columns, name)[rows[~low] - front]
        return made

    def packed(self, rows: Array) -> list[bytes | None]:
        """Whole rows, in ascending order, as bytes; None for one that is not kept or not what was stored."""
        front = len(self.base.columns)
        low = int(np.searchsorted(rows, front))
        return [*self.base.packed(rows[:low]), *self.tail.packed(rows[low:] - front)]

    def postings(self, term: str) -> tuple[Array, Array]:
        number = digest(term)
        found = [(part.postings(number, self.added), front) for part, _, front in self.parts]
        rows = [posts + np.int32(front) if front else posts for (posts, _), front in found if len(posts)]
        counts = [few for (_, few), _ in found if len(few)]
        if len(rows) == 1:
            return rows[0], counts[0]
        return (
            (np.concatenate(rows), np.concatenate(counts)) if rows else (np.zeros(0, np.int32), np.zeros(0, np.uint16))
        )


@dataclass(frozen=True)
class Seen:
    """The visible rows of a view with what BM25 needs to know of them all."""

    mask: Array
    rows: int
    norms: Array
    """K1 * (1 - B + B * length / mean length) of each row."""


def seen(view: View, mask: Array) -> Seen:
    lengths = view.column("lengths")
    rows = int(mask.sum())
    mean = int(lengths[mask].sum(dtype=np.int64)) / rows if rows else 1.0
    return Seen(mask, rows, np.asarray(K1 * (1 - B) + lengths * (K1 * B / max(mean, 1e-9)), np.float32))


def word_scores(view: View, asked: Asked, among: Seen) -> Array:
    """The BM25 score of every row, 0 where no word stands or the row is not visible.

    A compound counts as one further word beside those asked for, with a quarter of their weight: the compounds that
    end or begin with a word, and the two parts of a compound where both stand in visible rows by themselves.
    """
    scores = np.zeros(len(among.mask))
    for term, count in asked.terms:
        _add(scores, *_visible(*view.postings(term), among), count, among)
    for word in asked.words:
        for group in _related(view, word, among):
            _add(scores, *_union(view, group, among), COMPOUND, among)
    return scores


def with_all(view: View, terms: Sequence[str], among: Seen) -> Array:
    """Which visible rows hold every term."""
    holds = among.mask.copy()
    for term in terms:
        one = np.zeros_like(holds)
        one[view.postings(term)[0]] = True
        holds &= one
    return holds


def holding(text: str, phrase: str) -> bool:
    """Whether a text holds a phrase literally, but for case and white space, and not within longer words."""
    return re.search(rf"(?<![^\W{SPACELESS}]){re.escape(phrase)}(?![^\W{SPACELESS}])", literal(text)) is not None


def best(scores: Array, eligible: Array, n: int, view: View) -> Array:
    """The `n` rows with the highest scores above 0 of those eligible; equal ones in the order of their ids."""
    among = scores if eligible.all() else np.where(eligible, scores, 0.0)
    least = _highest(among, n) if len(among) > n else 0.0
    rows = np.flatnonzero(among >= least if least > 0 else among > 0)
    return rows[np.lexsort((view.at("ids", rows), -scores[rows]))][:n]


def nearest(view: View, vector: Array, eligible: Array, n: int) -> Array:
    """Rows among which the `n` of the highest cosine surely are: what 8 bit cannot tell apart is left to the caller."""
    rough = np.concatenate([_products(columns, vector) for _, columns, _ in view.parts])
    rounded = np.sqrt(len(vector)) * np.abs(vector).max() / QUERY_STEPS / 2  # times the length of a row, which is 1
    reach = view.column("off") * np.float32(np.linalg.norm(vector)) + np.float32(rounded + 1e-5)
    if not eligible.all():
        rough = np.where(eligible, rough, -np.inf)
    if int(eligible.sum()) <= n:
        return np.flatnonzero(eligible)
    return np.flatnonzero(rough + reach >= _highest(rough - reach, n))


def _highest(values: Array, n: int) -> Any:
    """The `n`-th highest value. Looked for among those that reach the `n`-th highest of the highest of each block."""
    blocks = len(values) // BLOCKED
    if blocks > n:
        tops = values[: blocks * BLOCKED].reshape(blocks, BLOCKED).max(1)
        values = values[values >= np.partition(tops, -n)[-n]]
    return np.partition(values, -n)[-n]


def _products(columns: Columns, vector: Array) -> Array:
    """Cosines with vectors as 8 bit tell them: by the compiled library, or by numpy, a few rows at a time."""
    library = native().library
    n, dim = columns.small.shape
    out = np.empty(n, np.float32)
    query = np.ascontiguousarray(vector, np.float32)
    if library is not None and dim % 16 == 0 and dim <= SCANNED:
        small, scales = np.ascontiguousarray(columns.small), np.ascontiguousarray(columns.scales)
        library.factform_scan(small.ctypes.data, scales.ctypes.data, query.ctypes.data, n, dim, out.ctypes.data)
        return out
    for start in range(0, n, BLOCK):
        out[start : start + BLOCK] = columns.small[start : start + BLOCK].astype(np.float32) @ query
    return np.asarray(out * columns.scales, np.float32)


def _visible(rows: Array, counts: Array, among: Seen) -> tuple[Array, Array]:
    if among.rows == len(among.mask):
        return rows, counts
    stays = among.mask[rows]
    return (rows, counts) if stays.all() else (rows[stays], counts[stays])


def _union(view: View, terms: Sequence[str], among: Seen) -> tuple[Array, Array]:
    """Postings of several terms as if they were one."""
    summed = np.zeros(len(among.mask), np.int64)
    for term in terms:
        rows, counts = _visible(*view.postings(term), among)
        summed[rows] += counts
    rows = np.flatnonzero(summed)
    return rows, summed[rows]


def _add(scores: Array, rows: Array, counts: Array, weight: float, among: Seen) -> None:
    if len(rows):
        rarity = np.log(1 + (among.rows - len(rows) + 0.5) / (len(rows) + 0.5))
        library = native().library
        if library is not None and rows.dtype == np.int32 and counts.dtype == np.uint16:
            rows, counts = np.ascontiguousarray(rows), np.ascontiguousarray(counts)
            at = (rows.ctypes.data, counts.ctypes.data, len(rows), among.norms.ctypes.data)
            library.factform_word(*at, float(weight * rarity), scores.ctypes.data)
            return
        often = counts.astype(np.float32)
        scores[rows] += weight * rarity * (often / (often + among.norms[rows]))


def _related(view: View, word: str, among: Seen) -> list[list[str]]:
    """Terms that count as one each: the compounds `word` is part of, and the parts `word` is made of."""
    groups = []
    if len(word) > PART and word.isalpha() and word not in FUNCTION_WORDS:
        groups.append(_compounds(view, word, among))
    if len(word) >= LONG and word.isalpha():
        groups += _split(view, word, among)
    return [group for group in groups if group]


def _compounds(view: View, word: str, among: Seen) -> list[str]:
    """Compounds in visible rows that end or begin with `word`, and long words that differ from it by a German ending;
    of all these the most frequent. The other part must be a word too, or "interaction" would be found by "action";
    where `word` stands nowhere by itself, any other part will do."""
    alone = not len(_visible(*view.postings(stem(word)), among)[0])
    found: dict[str, int] = {}
    for part, _, _ in view.parts:
        behind = ((word + end, long) for end in ENDINGS for long in part.vocabulary.ending(word + end))
        pairs = [(long, long[: -len(tail)], True) for tail, long in behind]
        pairs += [(long, long[len(word) :], False) for long in part.vocabulary.beginning(word)]
        shorter = {word.removesuffix(end) for end in ENDINGS if len(word.removesuffix(end)) >= LONG} - {word}
        pairs += [(bare, "", False) for bare in shorter if bare in part.vocabulary]
        for long, other, linked in pairs:
            term = stem(long)
            ending = not linked and other in ENDINGS
            if (len(other) < PART and not ending) or term in found or term == stem(word):
                continue
            few = len(_visible(*view.postings(term), among)[0])
            if few and (ending or alone or _stands(view, other, among, linked=linked)):
                found[term] = few
    return sorted(found, key=lambda term: (-found[term], term))[:MOST_COMPOUNDS]


def _split(view: View, word: str, among: Seen) -> list[list[str]]:
    """Both parts of a compound, cut where the shorter is longest."""
    cuts = sorted(range(PART, len(word) - PART + 1), key=lambda at: (-min(at, len(word) - at), at))
    for at in cuts:
        last = stem(word[at:])
        if len(_visible(*view.postings(last), among)[0]):
            first = _stands(view, word[:at], among, linked=True)
            if first:
                return [[first], [last]]
    return []


def _stands(view: View, part: str, among: Seen, *, linked: bool) -> str:
    """The term of a part that is a word of visible rows by itself, "" if it is none: a first part but for its link, a
    last part but for its ending."""
    for link in LINKS if linked else ENDINGS:
        bare = part.removesuffix(link)
        whole = (not link or part.endswith(link)) and len(bare) >= PART
        if whole and len(_visible(*view.postings(stem(bare)), among)[0]):
            return stem(bare)
    return ""
