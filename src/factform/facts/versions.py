"""Versions of a document compared: what was found when, and a unified diff of two canonical texts.

Knows nothing of searching. Texts come from blobs, checked against their hashes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from factform.errors import NotFound, QueryError
from factform.facts.ledger import VersionRow

CONTEXT = 3
"""Lines shown around a change."""


@dataclass(frozen=True)
class Hunk:
    """A run of changed lines with what stands around them. `lines` begin with " ", "-" or "+"; places count from 1."""

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Two versions of a document, from `old` to `new`. `added` and `removed` count lines. `told` are the fields that
    differ beside the text, each as (name, old, new)."""

    document: str
    old: str
    new: str
    added: int
    removed: int
    hunks: tuple[Hunk, ...]
    told: tuple[tuple[str, object, object], ...] = ()


def pick(rows: Sequence[VersionRow], document: str, version: str) -> VersionRow:
    """The one row meant by a version's id, the beginning of one (4 digits at least), or a point at which it was found.

    Of several rows of one version (its metadata was changed) the last. Raises NotFound, or QueryError where the
    beginning is that of several.
    """
    found = [row for row in rows if row.began is not None]
    said = version.strip().lower()
    if re.fullmatch(r"\d{1,18}", said, re.ASCII) and len(said) < 16:
        point = int(said)
        at = [r for r in found if r.began is not None and r.began <= point and (r.ended is None or point < r.ended)]
        if at:
            return at[-1]
    meant = [row for row in found if len(said) >= 4 and row.version.startswith(said)]
    if len({row.version for row in meant}) > 1:
        raise QueryError(f"several versions of {document!r} begin with {version!r}: give more of it")
    if not meant:
        raise NotFound(f"{document!r} has no version {version!r}: `factform history {document}` lists them")
    return meant[-1]


def compare(old: VersionRow, new: VersionRow, text_of: Callable[[VersionRow], str]) -> Difference:
    """What changed from one version to another: lines of the canonical text, and what was told with it."""
    before, after = _lines(text_of(old)), _lines(text_of(new))
    hunks = tuple(_hunk(before, after, group) for group in _groups(before, after))
    names = ("title", "name", "media_type", "metadata", "access")
    told = [(name, getattr(old, name), getattr(new, name)) for name in names]
    return Difference(
        old.document,
        old.version,
        new.version,
        sum(line.startswith("+") for hunk in hunks for line in hunk.lines),
        sum(line.startswith("-") for hunk in hunks for line in hunk.lines),
        hunks,
        tuple(each for each in told if each[1] != each[2]),
    )


Opcode = tuple[str, int, int, int, int]


def _groups(before: Sequence[str], after: Sequence[str]) -> list[list[Opcode]]:
    return [list(group) for group in difflib.SequenceMatcher(None, before, after, False).get_grouped_opcodes(CONTEXT)]


def _hunk(before: Sequence[str], after: Sequence[str], group: Sequence[Opcode]) -> Hunk:
    lines: list[str] = []
    for kind, a, b, c, d in group:
        if kind == "equal":
            lines += [f" {line}" for line in before[a:b]]
        else:
            lines += [f"-{line}" for line in before[a:b]] + [f"+{line}" for line in after[c:d]]
    first, last = group[0], group[-1]
    old, new = last[2] - first[1], last[4] - first[3]
    # As diff does it: an empty side stands after the line before it.
    return Hunk(first[1] + bool(old), old, first[3] + bool(new), new, tuple(lines))


def _lines(text: str) -> list[str]:
    """Lines without their ends; a text's last line need not have one."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
