"""Counterfactual twins: the answer's numbers and names swapped in passage and answer alike, so only copying is right.

Knows nothing of retrieval or training. The twin of a passage has the same length, so every span in it stays true.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from factform.form.contract import choices, contract_problems, quote_pairs
from factform.form.quotes import locate_quote
from factform.form.values import (
    MONTHS,
    Number,
    dates,
    decimal_of,
    is_year,
    number_values,
    numbers,
    quarters,
    scaled,
    undated,
)
from factform.ids import sha256_json, sha256_text
from factform.jsonvalue import scalars
from factform.records import Case, Contract, Passage

DRAWS = 200
"""How often new digits are drawn before a twin is given up as impossible."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_NAME = re.compile(r"[A-Z][\w'’&.-]*(?: (?:(?:of|the|de|van|von|der|und|and|&) )?[A-Z][\w'’&.-]*){0,4}")
_KEPT_WORDS = frozenset(
    re.findall(
        r"\w+",
        """monday tuesday wednesday thursday friday saturday sunday gmbh ltd inc llc corp limited company group the and
        yes none not euro euros dollar dollars pound pounds thousand million billion percent""",
    )
).union(MONTHS)
"""Capitalised words that stay what they are in a twin: they are no names."""

_VOWELS, _CONSONANTS = "aeiou", "bdfgklmnprstv"


@dataclass(frozen=True)
class Swap:
    """Replacement of the digits of one number, or of one word of a name where `exponents` is None.

    `exponents` tell 4.2 from 42: both are the digits "42", divided by other powers of ten.
    """

    old: str
    new: str
    exponents: tuple[int, ...] | None = None

    def takes(self, token: Number) -> bool:
        return self.exponents is not None and token.digits == self.old and bool({*self.exponents} & {*token.exponents})


def make_twin(case: Case, passage: Passage, rng: random.Random, contract: Contract) -> tuple[Case, Passage] | None:
    """A twin of an answerable case and its gold passage, or None when nothing can be swapped without ambiguity.

    Swapped are numbers and capitalised names of the gold quote that are leaves of the answer; everywhere in the
    passage, its title and headings. Years, dates, ordinals, codes and whatever the question mentions stay. The same
    state of `rng` gives the same twin.
    """
    if case.expected is None or not case.answerable:
        return None
    spans = _quote_spans(case.expected, passage, contract)
    if not spans:
        return None
    text = passage.chunk.text
    facts = [(path, leaf) for path, leaf in scalars(case.expected) if not _is_form(path, leaf, contract)]
    swaps = _number_swaps(case, text, [text[s:e] for _, (s, e) in spans], [leaf for _, leaf in facts], contract, rng)
    if swaps is None:
        return None
    swaps += _name_swaps(case, text, [text[s:e] for _, (s, e) in spans], [leaf for _, leaf in facts], rng)
    if not swaps:
        return None
    twin = _twin_passage(passage, swaps)
    expected = _twin_expected(case.expected, twin.chunk.text, dict(spans), {path for path, _ in facts}, text, swaps)
    if expected is None or not _is_sound(twin.chunk.text, text, expected, contract, swaps):
        return None
    answers = tuple(_rewrite(answer, swaps, years=True) for answer in case.answers)
    made = replace(case, id=f"{case.id}-{twin.chunk.id[:13]}", expected=expected, answers=answers)
    return made, twin


def _quote_spans(
    expected: Mapping[str, Any], passage: Passage, contract: Contract
) -> list[tuple[tuple[str, ...], tuple[int, int]]]:
    """Where each quote stands in the passage; nothing when one stands elsewhere: its numbers could not be swapped."""
    spans = []
    for path, quote, _, _ in quote_pairs(contract, expected):
        if quote is None:
            continue
        span = locate_quote(passage.chunk.text, quote)
        if span is None:
            return []
        spans.append((path, span))
    return spans


def _is_form(path: tuple[str | int, ...], leaf: Any, contract: Contract) -> bool:
    """Whether a leaf is no fact to be copied: a quote or source, a truth value, null or one of the schema's choices."""
    if path in contract.quote_paths or path in contract.source_paths or leaf is None or isinstance(leaf, bool):
        return True
    return isinstance(leaf, str) and leaf in choices(contract.schema, path)


# --- numbers --------------------------------------------------------------------------------


def _number_swaps(
    case: Case, text: str, quotes: Sequence[str], facts: Sequence[Any], contract: Contract, rng: random.Random
) -> list[Swap] | None:
    """A swap for each number of the quotes that is (in) a leaf; None when one of them cannot be swapped."""
    asked = number_values(case.question)
    wanted = frozenset().union(*(_leaf_values(leaf) for leaf in facts))
    olds: list[Number] = []
    others: list[Number] = []
    for token in (t for quote in quotes for t in _swappable(quote)):
        if not token.values() & wanted or token.values() & asked:
            others.append(token)
        elif not any(_swap(old, "").takes(token) for old in olds):
            olds.append(_read_as(token, wanted))
    if not olds:
        return []
    taken = number_values(text) | asked | wanted
    ordered = _decided_by_order(case, contract)
    for _ in range(DRAWS):
        swaps = [_swap(token, _draw(token, rng)) for token in olds]
        news = [number_values(_pour(t.text, s.new)) for t, s in zip(olds, swaps, strict=True)]
        distinct = len({s.new for s in swaps}) == len(swaps)
        if distinct and not any(n & taken for n in news) and (not ordered or _same_order(olds, swaps, others)):
            return swaps
    return None


def _read_as(token: Number, wanted: frozenset[Decimal]) -> Number:
    """The token in the reading that the answer has of it: 5,000 hours are not the 5 of a product's name."""
    readings = [e for e in token.exponents if replace(token, exponents=(e,)).values() & wanted]
    return replace(token, exponents=tuple(readings))


def _swap(token: Number, digits: str) -> Swap:
    return Swap(token.digits, digits, token.exponents)


def _leaf_values(leaf: Any) -> frozenset[Decimal]:
    if isinstance(leaf, int | float):
        return frozenset({abs(decimal_of(leaf))})
    return (
        frozenset().union(*(token.values() for token in _swappable(leaf, years=True)))
        if isinstance(leaf, str)
        else frozenset()
    )


def _swappable(text: str, years: bool = False) -> list[Number]:
    """Number tokens that stand alone and are neither a year nor in a date or quarter.

    With `years` what looks like a year counts, too: the value 1940 of a leaf may be the 1,940 of a price.
    """
    fixed = [(s, e) for s, e, _ in dates(text)] + [(s, e) for s, e, _ in quarters(text)]
    return [
        token
        for token in numbers(text)
        if token.free
        and (years or not is_year(token))
        and not (len(token.digits) > 1 and token.text[0] == "0" and token.exponents == (0,))
        and not any(s < token.end and token.start < e for s, e in fixed)
    ]


def _draw(token: Number, rng: random.Random) -> str:
    """New digits of the same shape. The first is no zero where the old was none, the last of a fraction neither."""
    digits = [rng.choice("0123456789") for _ in token.digits]
    if token.digits[0] != "0":
        digits[0] = rng.choice("123456789")
    else:  # 0.25 stays below one
        digits[0] = "0"
    if token.exponents != (0,) or digits == ["0"]:
        digits[-1] = rng.choice("123456789")
    return "".join(digits)


def _decided_by_order(case: Case, contract: Contract) -> bool:
    """Whether the answer holds a choice ("increased") that may hang on which of two numbers is larger."""
    found = scalars(case.expected)
    return any(isinstance(leaf, bool) or (path and choices(contract.schema, path)) for path, leaf in found)


def _same_order(olds: Sequence[Number], swaps: Sequence[Swap], others: Sequence[Number]) -> bool:
    def value(token: Number, digits: str) -> Decimal:
        return scaled(digits, token.scale - token.exponents[0])

    before = [value(t, t.digits) for t in [*olds, *others]]
    after = [value(t, s.new) for t, s in zip(olds, swaps, strict=True)] + [value(t, t.digits) for t in others]
    pairs = [(i, j) for i in range(len(swaps)) for j in range(len(before)) if i != j]
    return all((before[i] > before[j]) == (after[i] > after[j]) for i, j in pairs)


def _pour(shape: str, digits: str) -> str:
    """`digits` in the separators of `shape`: as many digits as it has."""
    left = iter(digits)
    return "".join(next(left) if c.isdigit() else c for c in shape)


# --- names ----------------------------------------------------------------------------------


def _name_swaps(case: Case, text: str, quotes: Sequence[str], facts: Sequence[Any], rng: random.Random) -> list[Swap]:
    swaps: dict[str, Swap] = {}
    asked = {word.casefold() for word in _WORD.findall(case.question)}
    words = set(_WORD.findall(text))
    for leaf in facts:
        if not isinstance(leaf, str) or not _NAME.fullmatch(leaf) or not any(_stands(q, leaf) for q in quotes):
            continue
        parts = [word for word in _WORD.findall(leaf) if word[0].isupper()]
        if any(word.casefold() in asked for word in parts) or not _is_name(text, leaf):
            continue  # a name the question gives is no answer to it
        for word in parts:
            if len(word) < 3 or word.casefold() in _KEPT_WORDS or word.lower() in words:
                continue
            if word.isupper() and len(word) <= 3:  # a currency or unit
                continue
            swaps.setdefault(word, Swap(word, _invent(word, words, rng)))
    return [swaps[word] for word in sorted(swaps)]


def _stands(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _is_name(text: str, name: str) -> bool:
    """Whether it is written with a capital where an ordinary word would not be: not only where a sentence starts."""
    if " " in name:
        return True
    return any(
        re.search(r"(?:[\w,;:(|“\"'][ \t]+|\|)$", text[: match.start()])
        for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text)
    )


def _invent(word: str, words: set[str], rng: random.Random) -> str:
    """A pronounceable word of the same length and capitals that is not in the passage."""
    while True:
        turn = rng.randrange(2)
        made = "".join(
            c if not c.isalpha() else rng.choice(_VOWELS if (i + turn) % 2 else _CONSONANTS) for i, c in enumerate(word)
        )
        made = "".join(m.upper() if c.isupper() else m for m, c in zip(made, word, strict=True))
        if made not in words and made != word:
            return made


# --- putting it together --------------------------------------------------------------------


def _rewrite(text: str, swaps: Sequence[Swap], years: bool = False) -> str:
    """`text` with every swap done at once; as long as before."""
    by_word = {s.old: s.new for s in swaps if s.exponents is None}
    pieces = list(text)
    for token in _swappable(text, years):
        if swap := next((s for s in swaps if s.takes(token)), None):
            pieces[token.start : token.end] = _pour(token.text, swap.new)
    for match in _WORD.finditer(text):
        pieces[match.start() : match.end()] = _renamed(match.group(), by_word)
    return "".join(pieces)


def _renamed(word: str, by_word: Mapping[str, str]) -> str:
    if word in by_word:
        return by_word[word]
    base, mark, rest = word.partition("'" if "'" in word else "’")
    return f"{by_word[base]}{mark}{rest}" if base in by_word else word


def _twin_passage(passage: Passage, swaps: Sequence[Swap]) -> Passage:
    chunk = passage.chunk
    text = _rewrite(chunk.text, swaps)
    made = replace(
        chunk,
        id="twin-" + sha256_json(["twin", chunk.id, text])[:24],
        end=chunk.start + len(text),
        text=text,
        sha256=sha256_text(text),
        title=_rewrite(chunk.title, swaps),
        heading=tuple(_rewrite(h, swaps) for h in chunk.heading),
        pages=(),  # their offsets belong to the text before the swap
    )
    return replace(passage, chunk=made)


def _twin_expected(
    expected: Mapping[str, Any],
    text: str,
    spans: Mapping[tuple[str, ...], tuple[int, int]],
    facts: set[tuple[str | int, ...]],
    old_text: str,
    swaps: Sequence[Swap],
) -> dict[str, Any] | None:
    """The expected answer after the swaps; None when a number leaf has no token it could have been read from."""
    missing: list[Any] = []

    def leaf(path: tuple[str | int, ...], value: Any) -> Any:
        if path in spans:
            start, end = spans[path]  # type: ignore[index]
            return text[start:end]
        if path not in facts:
            return value
        if isinstance(value, str):
            return _rewrite(value, swaps, years=True)
        new = _new_number(value, [old_text[s:e] for s, e in spans.values()], swaps)
        if new is None:
            missing.append(path)
        return new

    made: dict[str, Any] = _mapped(expected, (), leaf)
    return None if missing else made


def _mapped(value: Any, path: tuple[str | int, ...], leaf: Callable[[tuple[str | int, ...], Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _mapped(sub, (*path, key), leaf) for key, sub in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(sub, (*path, index), leaf) for index, sub in enumerate(value)]
    return leaf(path, value)


def _new_number(value: int | float, quotes: Sequence[str], swaps: Sequence[Swap]) -> int | float | None:
    """What a number leaf becomes: the token it equals tells by which power of ten digits and value differ."""
    old = abs(decimal_of(value))
    found: set[Decimal] = set()
    for token in (t for quote in quotes for t in _swappable(quote)):
        swap = next((s for s in swaps if s.takes(token)), None)
        if swap and swap.exponents:
            powers = {scale - e for e in swap.exponents for scale in (0, token.scale)}
            found |= {scaled(swap.new, p) for p in powers if scaled(token.digits, p) == old}
    if not found:
        return value
    if len(found) > 1:
        return None
    new = found.pop().copy_sign(decimal_of(value))
    return int(new) if isinstance(value, int) else float(new)


def _is_sound(text: str, old_text: str, expected: Mapping[str, Any], contract: Contract, swaps: Sequence[Swap]) -> bool:
    """Whether nothing of the old answer is left in passage and answer, and the new answer is in contract."""
    olds: set[Decimal] = set()
    for token in _swappable(old_text):
        for swap in swaps:
            if swap.exponents and swap.takes(token):
                olds |= replace(token, exponents=swap.exponents).values()
    facts = [leaf for path, leaf in scalars(expected) if not _is_form(path, leaf, contract)]
    if olds & number_values(undated(text)) or any(olds & _leaf_values(leaf) for leaf in facts):
        return False
    if any(swap.exponents is None and _stands(text.casefold(), swap.old.casefold()) for swap in swaps):
        return False
    return not contract_problems(contract, expected, allow_refusal=False)
