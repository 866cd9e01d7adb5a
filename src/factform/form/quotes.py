"""Where a quote stands in a text, whatever its white space.

Knows nothing of passages, cases or models: two strings in, a span out.
"""

from __future__ import annotations


def locate_quote(text: str, quote: str) -> tuple[int, int] | None:
    """First span `[start, end)` of `text` that is `quote` but for white space; None when there is none.

    A verbatim occurrence wins over one that differs in white space: in "a  b a b" the quote "a b" is the second.
    The span neither starts nor ends with white space. A quote of white space only stands nowhere.
    """
    needle = quote.strip()
    if not needle:
        return None
    at = text.find(needle)
    if at >= 0:
        return at, at + len(needle)
    # PDF text breaks lines inside words and drops spaces between columns, so white space is left out on both sides.
    places = [i for i, char in enumerate(text) if not char.isspace()]
    bare = "".join(text[i] for i in places)
    wanted = "".join(needle.split())
    at = bare.find(wanted)
    if at < 0:
        return None
    return places[at], places[at + len(wanted) - 1] + 1
