"""Names for audit records: 26 characters that sort by the time of writing.

Knows nothing of records or stores. The layout is that of a ULID: 48 bits of milliseconds since 1970, then 80 random
bits, in Crockford's base 32 (no I, L, O, U, so that an id read aloud or retyped stays right).
"""

from __future__ import annotations

import secrets

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
RANDOM_BITS = 80


def encode(number: int) -> str:
    """`number` (0 <= number < 2**128) as 26 characters; the order of texts is the order of numbers."""
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(5 * (LENGTH - 1), -1, -5))


def decode(text: str) -> int:
    """The number of which `text` is the encoding; ValueError if it is none."""
    number = 0
    for character in text:
        number = number << 5 | ALPHABET.index(character)
    return number


def next_id(milliseconds: int, last: str | None) -> str:
    """An id for this moment, greater than `last` whatever the clock says.

    Two records of one millisecond, or a clock set back, would otherwise sort differently from how they were written.
    """
    fresh = encode(milliseconds << RANDOM_BITS | secrets.randbits(RANDOM_BITS))
    return fresh if last is None or fresh > last else encode(decode(last) + 1)
