"""Numbers, dates and quarters as people write them, brought to one form so that two writings can be compared.

Knows nothing of rows, passages or contracts: text in, values and spans out. What can be read in two ways ("1,234")
is given both values: a comparison asks whether any reading agrees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
MAGNITUDES = {
    "k": 3,
    "thousand": 3,
    "m": 6,
    "mn": 6,
    "mio": 6,
    "million": 6,
    "millions": 6,
    "bn": 9,
    "billion": 9,
    "billions": 9,
    "trillion": 12,
    "%": -2,
    "percent": -2,
}
"""Power of ten by the word after a number. A percentage may be given as a share: 12 % is 0.12."""

_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen")
_TEENS = ("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS: dict[str, int] = (
    {"zero": 0}
    | {word: i for i, word in enumerate(_ONES + _TEENS, start=1)}
    | {word: 10 * i for i, word in enumerate(_TENS, start=2)}
    | {f"{tens}-{one}": 10 * i + j for i, tens in enumerate(_TENS, start=2) for j, one in enumerate(_ONES[:9], start=1)}
    | {"hundred": 100, "dozen": 12, "once": 1, "twice": 2, "half": 50}
    | {word: i for i, word in enumerate(("first", "second", "third", "fourth", "fifth", "sixth"), start=1)}
)

_GROUPED = r"[1-9]\d{0,2}(?:([,.'’\u00a0\u202f\u2009])\d{3})(?:\1\d{3})*(?:[.,]\d+)?(?!\d)"
_NUMBER = re.compile(rf"(?:{_GROUPED})|\d+(?:[.,]\d+)?")
_SPACED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?:[.,]\d+)?(?![\d])")
_AFTER = re.compile(r"[\s\u00a0\u202f-]{0,2}(%|[A-Za-z]+)")

_MONTH = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATES = (
    re.compile(r"(?<!\d)(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})(?!\d)"),
    re.compile(r"(?<!\d)(?P<d>\d{1,2})[-/.](?P<m>\d{1,2})[-/.](?P<y>\d{4})(?!\d)"),
    re.compile(rf"(?<!\d)(?P<d>\d{{1,2}})(?:st|nd|rd|th|\.)?(?:\s+of)?\s+{_MONTH}(?:,?\s+(?P<y>\d{{4}}))?(?!\d)", re.I),
    re.compile(rf"\b{_MONTH}\s+(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?!\d)(?:,?\s+(?P<y>\d{{4}})(?!\d))?", re.I),
    re.compile(r"(?<!\d)(?P<y>(?:19|20)\d{2})-(?P<m>0[1-9]|1[0-2])(?![\d-])"),
    re.compile(rf"\b{_MONTH},?\s+(?:of\s+)?(?P<y>\d{{4}})(?!\d)", re.I),
)
_NTH = r"(?P<nth>first|second|third|fourth|1st|2nd|3rd|4th)(?:\s+(?:fiscal|financial|calendar))?"
_QUARTERS = (
    re.compile(r"(?<!\d)(?P<y>(?:19|20)\d{2})\s*[-/ ]?\s*Q(?P<q>[1-4])\b", re.I),
    re.compile(r"\bQ(?P<q>[1-4])(?:\s*[-/,]?\s*(?:of\s+|FY\s*)?(?P<y>(?:19|20)\d{2}|'?\d{2})(?!\d))?(?!\w)", re.I),
    re.compile(r"\b(?P<q>[1-4])Q\s?(?P<y>(?:19|20)?\d{2})(?!\w)", re.I),
    re.compile(rf"\b{_NTH}\s+quarter(?:(?:\s+of|,|\s+in)?\s+(?P<y>\d{{4}}))?", re.I),
)
_NTH_VALUE = {"first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4}

Date = tuple[int | None, int, int | None]
"""Year, month, day; None for what the writing leaves open."""
Quarter = tuple[int | None, int]


@dataclass(frozen=True)
class Number:
    """A number token at `[start, end)`: its digits, and each power of ten by which they may have to be divided.

    `scale` is the power of ten of the word after it (million: 6), 0 without one. `free` is False for a token that
    is a part of something longer: a code (AB-12), a time (10:30), an ordinal (2nd), a version (1.2.3).
    """

    start: int
    end: int
    text: str
    digits: str
    exponents: tuple[int, ...]
    scale: int
    free: bool

    def values(self) -> frozenset[Decimal]:
        """Every value the token may stand for, with and without the word after it."""
        scales = {0, self.scale}
        return frozenset(scaled(self.digits, scale - e) for e in self.exponents for scale in scales)


def scaled(digits: str, power: int) -> Decimal:
    """`digits` as an integer times ten to `power`, exactly and in one normal form."""
    return (Decimal(int(digits)).scaleb(power)).normalize() + Decimal(0)


def decimal_of(value: int | float) -> Decimal:
    """The decimal a JSON number is written as: 0.1 is exactly one tenth here."""
    return Decimal(repr(value)).normalize() + Decimal(0)


def numbers(text: str) -> Iterator[Number]:
    """The number tokens of `text` in order. Grouping by a plain space is not assumed: columns are apart by it, too."""
    for match in _NUMBER.finditer(text):
        yield _number(text, match.start(), match.end())


def _number(text: str, start: int, end: int) -> Number:
    raw = text[start:end]
    digits = re.sub(r"\D", "", raw)
    after = _AFTER.match(text, end)
    scale = MAGNITUDES.get(after.group(1).lower(), 0) if after else 0
    before, behind = text[max(0, start - 2) : start], text[end : end + 2]
    joined_before = bool(re.search(r"(?:\w|\w[-/.:,_]|[#§])$", before))
    unit = after is not None and scale != 0 and after.start(1) == end
    compound = re.match(r"-[a-z]{3}", text[end : end + 4])  # a 30-day period
    joined_behind = bool(re.match(r"[-/.:,_'’]?\w", behind)) and not unit and not compound
    return Number(start, end, raw, digits, _exponents(raw), scale, not (joined_before or joined_behind))


def _exponents(raw: str) -> tuple[int, ...]:
    parts = re.split(r"\D", raw)
    separators = re.findall(r"\D", raw)
    if not separators:
        return (0,)
    last = separators[-1]
    decimals = len(parts[-1])
    if last not in ".,":
        return (0,)
    if len(separators) > 1:
        return (0,) if separators[0] == last else (decimals,)
    return (0, 3) if decimals == 3 and parts[0] != "0" and len(parts[0]) <= 3 else (decimals,)


def dates(text: str) -> Iterator[tuple[int, int, frozenset[Date]]]:
    """Spans of `text` that are dates (or a month with its year), with each reading: 03/04/2025 has two."""
    taken: list[tuple[int, int]] = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            if readings := _date_readings(match):
                taken.append(match.span())
                yield match.start(), match.end(), readings


def _date_readings(match: re.Match[str]) -> frozenset[Date]:
    groups = match.groupdict()
    year = int(groups["y"]) if groups.get("y") else None
    day = int(groups["d"]) if groups.get("d") else None
    if groups.get("month"):
        month = next(i for i, name in enumerate(MONTHS, start=1) if name.startswith(groups["month"].lower()))
        pairs = {(month, day)}
    else:
        month = int(groups["m"])
        pairs = {(month, day)}
        if day is not None and match.start("d") < match.start("m"):
            pairs.add((day, month))
    return frozenset((year, m, d) for m, d in pairs if 1 <= m <= 12 and (d is None or 1 <= d <= 31))


def quarters(text: str) -> Iterator[tuple[int, int, Quarter]]:
    """Spans of `text` that name a quarter ("Q2 2025", "2025-Q2", "second quarter of 2025"), with year and number."""
    taken: list[tuple[int, int]] = []
    for pattern in _QUARTERS:
        for match in pattern.finditer(text):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            taken.append(match.span())
            groups = match.groupdict()
            number = int(groups["q"]) if groups.get("q") else _NTH_VALUE[groups["nth"].lower()]
            yield match.start(), match.end(), (_year(groups.get("y")), number)


def _year(written: str | None) -> int | None:
    if not written:
        return None
    value = int(written.lstrip("'"))
    return value + 2000 if value < 100 else value


def undated(text: str) -> str:
    """`text` with its dates and quarters blanked out: their digits are no amounts."""
    for start, end in [(s, e) for s, e, _ in dates(text)] + [(s, e) for s, e, _ in quarters(text)]:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def is_year(number: Number) -> bool:
    """Whether the token reads as a year from 1900 to 2100: four digits, nothing between them."""
    return len(number.text) == 4 and number.text.isdigit() and 1900 <= int(number.text) <= 2100


@lru_cache(maxsize=4096)
def number_values(text: str) -> frozenset[Decimal]:
    """Every value any number in `text` may stand for: digits, spelled-out words, and groups apart by a space."""
    found: set[Decimal] = set()
    for number in numbers(text):
        found |= number.values()
    for match in _SPACED.finditer(text):
        joined = match.group().replace(" ", "")
        after = _AFTER.match(text, match.end())
        suffix = f" {after.group(1)}" if after else ""
        for number in numbers(joined + suffix):
            found |= number.values()
    for word in re.findall(r"[a-z]+(?:-[a-z]+)?", text.lower()):
        for part in {word, *word.split("-")}:
            if part in NUMBER_WORDS:
                found.add(scaled(str(NUMBER_WORDS[part]), 0))
    return frozenset(found)
