"""Passages that say the same words: all but the best of them are put aside.

Knows nothing of scores or stores. Only case, spacing, signs and hyphenation may differ, or one passage may be a part of
the other. A looser measure would lose facts: of two policies that differ by "not" or by one figure the reader must
see both.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from factform.facts.search import Scored
from factform.records import Chunk, Hit

_WORDS = re.compile(r"\w+")

FEW_WORDS = 5
"""A passage of fewer words is kept unless all of another: a heading alone is not yet its chapter."""


def words_of(text: str) -> str:
    """The words of a text between single spaces, without case, signs and hyphenation; compatible forms of a character
    are one."""
    plain = unicodedata.normalize("NFKC", text).replace("\N{SOFT HYPHEN}", "")
    joined = re.sub(r"(?<=\w)-\s*\n\s*(?=\w)", "", plain)
    return f" {' '.join(_WORDS.findall(joined.casefold()))} "


def says_no_more(words: str, than: str) -> bool:
    """Whether all of `words` stands in a row in `than` (both from `words_of`)."""
    return words == than if words.count(" ") <= FEW_WORDS else words in than


def copies_apart(scored: Sequence[Scored], k: int) -> tuple[list[Scored], tuple[Hit, ...]]:
    """`scored`, best first, without what better ones say as well; and that as hits not kept, each naming its model.

    Only until `k` are found: what comes behind them is not compared.
    """
    best: list[Scored] = []
    said: list[tuple[str, Chunk]] = []
    copies = []
    for place, item in enumerate(scored, 1):
        chunk = item.row.chunk
        words = words_of(chunk.text) if len(best) < k else ""
        model = next((other for theirs, other in said if says_no_more(words, theirs)), None) if words else None
        if model is None:
            best.append(item)
            said.append((words, chunk))
        else:
            reason = f"near duplicate of {model.id} in {model.document}"
            copies.append(Hit(place, chunk, item.score, item.scores, False, reason, ranks=item.ranks))
    return best, tuple(copies)
