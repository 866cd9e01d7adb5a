"""Where a span of the canonical text stands in the original, in its own terms: stored as one small JSON blob a version.

Knows nothing of formats, stores or chunks.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from factform.errors import StoreError
from factform.ids import canonical_json
from factform.records import Parsed, Place

FORMAT = 1
_Entry = tuple[int, int, Any]
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in PDF points from the lower left corner of the page, y upwards."""

_OF_PAGES = ("glyphs", "box")


@dataclass(frozen=True)
class Places:
    """All places of one version: for each kind (start, end, value), disjoint and sorted by start."""

    kinds: dict[str, list[_Entry]]

    def touched(self, kind: str, start: int, end: int) -> list[_Entry]:
        """Those of `kind` that hold some of `[start, end)`."""
        entries = self.kinds.get(kind, [])
        first = bisect_right(entries, start, key=lambda entry: entry[0]) - 1
        if first < 0 or entries[first][1] <= start:
            first += 1
        return entries[first : bisect_left(entries, end, key=lambda entry: entry[0])]

    def of(self, start: int, end: int) -> dict[str, Any]:
        """The names of the places of `[start, end)`: `{"sheet": "Costs", "row": 4, "last_row": 6}`."""
        found: dict[str, Any] = {}
        for kind in sorted(set(self.kinds) - set(_OF_PAGES)):
            if touched := self.touched(kind, start, end):
                found[kind] = touched[0][2]
                if touched[-1][2] != touched[0][2]:
                    found[f"last_{kind}"] = touched[-1][2]
        return found

    def glyphs(self, start: int, end: int) -> list[tuple[int, int, int, int]]:
        """Runs of `[start, end)` that are glyphs of a PDF page: (page, start, end, index of the first glyph)."""
        runs = []
        for begin, stop, index in self.touched("glyphs", start, end):
            first, last = max(start, begin), min(end, stop)
            runs += [(page, first, last, index + first - begin) for _, _, page in self.touched("page", first, last)]
        return runs

    def boxes(self, start: int, end: int) -> list[tuple[int, Box]]:
        """(page, box) of what was read from pictures in `[start, end)`."""
        found = self.touched("box", start, end)
        return [
            (page, (x0, y0, x1, y1)) for s, e, (x0, y0, x1, y1) in found for _, _, page in self.touched("page", s, e)
        ]


def framed(boxes: Sequence[tuple[int, Box]]) -> dict[str, Any]:
    """`{"box", "boxes"}` of (page, box) pairs; empty without any."""
    if not boxes:
        return {}
    first = min(page for page, _ in boxes)
    return {
        "box": list(around(box for page, box in boxes if page == first)),
        "boxes": [{"page": page, "box": list(box)} for page, box in boxes],
    }


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box around all of `boxes`."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def encode_places(parsed: Parsed) -> bytes | None:
    """The blob of a document's places and pages; None where it has none."""
    kinds: dict[str, list[list[Any]]] = {}
    for page in parsed.pages:
        if page.start < page.end:
            kinds.setdefault("page", []).append([page.start, page.end, page.number])
    for place in parsed.places:
        value = list(place.value) if isinstance(place.value, tuple) else place.value
        kinds.setdefault(place.kind, []).append([place.start, place.end, value])
    return canonical_json({"format": FORMAT, "kinds": kinds}).encode("utf-8") if kinds else None


def decode_places(blob: bytes) -> Places:
    """Raises StoreError for a blob of another format."""
    found = json.loads(blob)
    if found.get("format") != FORMAT:
        raise StoreError(f"places of format {found.get('format')!r}, not {FORMAT}; run `factform index rebuild`")
    return Places({kind: [(s, e, value) for s, e, value in entries] for kind, entries in found["kinds"].items()})


def glyph_places(text: str, glyphs: Sequence[int], offset: int) -> list[Place]:
    """Places of kind "glyphs" of `text`, which starts at `offset`: its characters but white space are `glyphs`.

    -1 stands for a character that no glyph is (a table's bars). White space in a run counts as the glyphs between.
    """
    places: list[Place] = []
    marks = (at for at, char in enumerate(text, offset) if not char.isspace())
    for at, glyph in zip(marks, glyphs, strict=True):
        if glyph < 0:
            continue
        last = places[-1] if places else None
        if last is not None and isinstance(last.value, int) and glyph - last.value == at - last.start:
            places[-1] = Place(last.start, at + 1, "glyphs", last.value)
        else:
            places.append(Place(at, at + 1, "glyphs", glyph))
    return places
