"""The guard: training rows that would teach a fact, contradict each other or leak a held-out case are refused.

Knows nothing of retrieval, tokens or training: rows and a contract in, problems out. A fact is supported when it can
be read in the row's own passages or question; what only the weights could hold belongs in the data layer.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from factform.form.contract import choices, contract_problems, quote_pairs
from factform.form.dataset import TrainingRow
from factform.form.quotes import locate_quote
from factform.form.rows import question_key
from factform.form.values import (
    MAGNITUDES,
    MONTHS,
    NUMBER_WORDS,
    Date,
    Quarter,
    dates,
    decimal_of,
    number_values,
    numbers,
    quarters,
)
from factform.jsonvalue import dotted, scalars
from factform.model.grammar import QUOTE_WORDS
from factform.model.prompt import REFUSAL
from factform.records import Case, Contract, Passage

Kind = Literal["fact", "quote", "contract", "duplicate", "conflict", "leak", "refusal"]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_CODE = re.compile(r"(?<!\w)(?=[\w./-]*\d)(?=[\w./-]*[^\W\d_])\w+(?:[./-]\w+)*(?!\w)")
"""A word with letters and digits in it: INV-2041, B12, ISO-9001."""

_SYMBOLS = {"€": "eur euro euros", "$": "usd dollar dollars", "£": "gbp pound pounds", "¥": "jpy yen", "%": "percent"}
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a an the this that these those it its he she they we you i our your their his her there here in on at by for
        from to of with without within after before until since during under over per as if when while where who which
        what how and or but nor not no yes none all any each every both either neither only also because so then than
        is are was were be been has have had do does did may must shall should will would can could please note""",
    )
)
_LOOSE_NUMBERS = frozenset({"zero", "one", "once", "twice", "half", "first", "second"})
"""Number words that ordinary sentences use without counting anything."""


@dataclass(frozen=True)
class Problem:
    """Why row `index` (with id `row`) must not be trained on. `path` and `value` say which leaf, where there is one."""

    index: int
    row: str
    kind: Kind
    detail: str
    path: str = ""
    value: Any = None


def lint_rows(
    rows: Sequence[TrainingRow], contract: Contract, held_out: Sequence[Case] = (), instructions: str = ""
) -> list[Problem]:
    """Every problem of `rows`, in row order. Words of the schema and of the behavior's `instructions` are form.

    Numbers of the instructions are not: a number that stands in no passage would be a fact held by the weights.
    """
    form = _words(instructions) | _words(json.dumps(contract.schema, ensure_ascii=False))
    problems = [p for index, row in enumerate(rows) for p in _row_problems(index, row, contract, form)]
    problems += _duplicates(rows)
    problems += _conflicts(rows, contract)
    problems += _leaks(rows, held_out)
    return sorted(problems, key=lambda p: p.index)


def split_rows(
    rows: Sequence[TrainingRow], problems: Sequence[Problem]
) -> tuple[list[TrainingRow], list[tuple[TrainingRow, tuple[Problem, ...]]]]:
    """The rows without problems, and the refused ones with theirs. Nothing is dropped silently."""
    found: dict[int, list[Problem]] = defaultdict(list)
    for problem in problems:
        found[problem.index].append(problem)
    kept = [row for index, row in enumerate(rows) if index not in found]
    return kept, [(rows[index], tuple(found[index])) for index in sorted(found)]


def _row_problems(index: int, row: TrainingRow, contract: Contract, form: frozenset[str]) -> Iterator[Problem]:
    def problem(kind: Kind, detail: str, path: str = "", value: Any = None) -> Problem:
        return Problem(index, row.id, kind, detail, path, value)

    target = row.output_object
    if target is None:
        yield problem("contract", "the target is no JSON object")
        return
    if _parsed(row.output) != target:
        yield problem("contract", "the target text and the target object are not the same")
    for path, what in contract_problems(contract, target):
        yield problem("contract", f"the target is out of contract: {what}", dotted(path))
    if (target == REFUSAL) == row.answerable:
        what = "refuses an answerable question" if row.answerable else "answers a question that is not answerable"
        yield problem("refusal", f"the target {what}")
    if target == REFUSAL:
        return
    yield from (problem("quote", what, path, value) for path, value, what in _quote_faults(row, target, contract))
    yield from (problem("fact", what, path, value) for path, value, what in _unsupported(row, target, contract, form))


def _parsed(output: str) -> Any:
    try:
        return json.loads(output)
    except ValueError:
        return None


def _quote_faults(row: TrainingRow, target: Mapping[str, Any], contract: Contract) -> Iterator[tuple[str, Any, str]]:
    by_label = {p.label: p.chunk.text for p in row.passages}
    for quote_path, quote, source_path, source in quote_pairs(contract, target):
        if quote is None and source is None:
            continue
        if source not in by_label:
            labels = ", ".join(by_label) or "none"
            yield dotted(source_path), source, f"{source!r} is the label of no passage of this row (labels: {labels})"
        elif not isinstance(quote, str) or not quote.strip():
            yield dotted(quote_path), quote, "the quote is empty"
        elif len(quote.split()) > QUOTE_WORDS:
            yield dotted(quote_path), quote, f"the quote has more than the {QUOTE_WORDS} words that can be written"
        elif quote not in by_label[source]:
            near = locate_quote(by_label[source], quote)
            how = "differs from it in white space" if near else "does not stand in it"
            yield dotted(quote_path), quote, f"the quote must be verbatim in passage {source}, but {how}"


# --- facts ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Context:
    """What a row's passages and question say, in comparable form."""

    words: frozenset[str]
    values: frozenset[Any]
    dates: frozenset[Date]
    quarters: frozenset[Quarter]
    codes: frozenset[str]


def _unsupported(
    row: TrainingRow, target: Mapping[str, Any], contract: Contract, form: frozenset[str]
) -> Iterator[tuple[str, Any, str]]:
    """Leaf path, leaf value and reason for each leaf that says something the context does not."""
    context = _row_context(row.question, row.passages)
    advice = "only the weights could hold it; add the document that says it to the data layer"
    for path, leaf in scalars(target):
        if path in contract.quote_paths or path in contract.source_paths or leaf is None or isinstance(leaf, bool):
            continue
        if leaf in choices(contract.schema, path):
            continue
        if isinstance(leaf, int | float):
            missing = [] if {abs(decimal_of(leaf))} & context.values else [str(leaf)]
        else:
            missing = list(_missing_in(str(leaf), context, form))
        if missing:
            listed = ", ".join(repr(m) for m in missing)
            yield dotted(path), leaf, f"{listed} is said neither by the passages nor by the question: {advice}"


def _row_context(question: str, passages: Sequence[Passage]) -> _Context:
    parts = [_text_context(question)]
    for passage in passages:
        parts += [_text_context(passage.chunk.text), _text_context(passage.chunk.header)]
    return _Context(
        words=frozenset().union(*(p.words for p in parts)),
        values=frozenset().union(*(p.values for p in parts)),
        dates=frozenset().union(*(p.dates for p in parts)),
        quarters=frozenset().union(*(p.quarters for p in parts)),
        codes=frozenset().union(*(p.codes for p in parts)),
    )


@lru_cache(maxsize=8192)
def _text_context(text: str) -> _Context:
    days = frozenset(reading for _, _, readings in dates(text) for reading in readings)
    spoken = frozenset(quarter for _, _, quarter in quarters(text))
    parts = {decimal_of(part) for named in (*days, *spoken) for part in named if part is not None}
    return _Context(
        words=_words(text),
        values=number_values(text) | parts,
        dates=days,
        quarters=spoken,
        codes=frozenset(match.group().casefold() for match in _CODE.finditer(text)),
    )


def _words(text: str) -> frozenset[str]:
    found = {_plain(word) for word in _WORD.findall(text)}
    for symbol, names in _SYMBOLS.items():
        if symbol in text or found & set(names.split()):
            found |= set(names.split())
    return frozenset(found | {_stem(word) for word in found})


def _plain(word: str) -> str:
    return re.sub(r"['’]s?$", "", word.casefold())


def _stem(word: str) -> str:
    """A word without the ending of plural or tense: enough to know "Customers" from "customer"."""
    for ending in ("ies", "ing", "ed", "es", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _missing_in(leaf: str, context: _Context, form: frozenset[str]) -> Iterator[str]:
    """The dates, quarters, codes, numbers and names of `leaf` that the context does not say, as written."""
    rest = leaf
    for start, end, readings in dates(leaf):
        if not any(_says_date(context, reading) for reading in readings):
            yield leaf[start:end]
        rest = _blank(rest, start, end)
    for start, end, (year, number) in list(quarters(rest)):
        if not _says_quarter(context, year, number):
            yield leaf[start:end]
        rest = _blank(rest, start, end)
    for match in list(_CODE.finditer(rest)):
        if any(token.free and token.start == match.start() for token in numbers(rest)):
            continue  # "4.2m" is a number with its unit
        if match.group().casefold() not in context.codes:
            yield match.group()
        rest = _blank(rest, *match.span())
    for token in numbers(rest):
        if not token.values() & context.values:
            yield token.text
    yield from _missing_words(rest, context, form)


def _missing_words(text: str, context: _Context, form: frozenset[str]) -> Iterator[str]:
    known = context.words | form
    for match in _WORD.finditer(text):
        word, plain = match.group(), _plain(match.group())
        if plain in NUMBER_WORDS and plain not in _LOOSE_NUMBERS:
            if not number_values(plain) & context.values and plain not in known:
                yield word
            continue
        if not word[0].isupper() or plain in known or _stem(plain) in known:
            continue
        if plain in _FUNCTION_WORDS or plain in _LOOSE_NUMBERS or plain in MONTHS or plain in MAGNITUDES:
            continue
        if _starts_sentence(text, match.start()) and not _goes_on_as_name(text, match.end()):
            continue
        yield word


def _starts_sentence(text: str, at: int) -> bool:
    """Whether a capital means nothing here: the first word of a sentence of several words."""
    starts = not text[:at].strip() or text[:at].rstrip()[-1] in ".!?:\n"
    sentence = re.split(r"[.!?\n]", text[at:], maxsplit=1)[0]
    return starts and len(sentence.split()) >= 4


def _goes_on_as_name(text: str, end: int) -> bool:
    """Whether another capitalised word follows: "Anna Berg decides", while "Customers pay" is an ordinary start."""
    return re.match(r"[ ][^\W\d_a-z]\w+", text[end:]) is not None


def _says_date(context: _Context, date: Date) -> bool:
    year, month, day = date
    if day is None:  # a month: any of its days says it, too
        return any(m == month and y in (year, None) for y, m, _ in context.dates) and _says_year(context, year)
    if date in context.dates:
        return True
    if year is None:
        return any((m, d) == (month, day) for _, m, d in context.dates)
    return (None, month, day) in context.dates and _says_year(context, year)


def _says_quarter(context: _Context, year: int | None, number: int) -> bool:
    if (year, number) in context.quarters:
        return True
    if year is None:
        return any(n == number for _, n in context.quarters)
    return (None, number) in context.quarters and _says_year(context, year)


def _says_year(context: _Context, year: int | None) -> bool:
    return year is None or decimal_of(year) in context.values or any(y == year for y, _, _ in context.dates)


def _blank(text: str, start: int, end: int) -> str:
    return text[:start] + " " * (end - start) + text[end:]


# --- rows against each other and against held-out cases -------------------------------------


def _duplicates(rows: Sequence[TrainingRow]) -> Iterator[Problem]:
    seen: dict[Any, str] = {}
    ids: dict[str, int] = {}
    for index, row in enumerate(rows):
        if row.id in ids:
            yield Problem(index, row.id, "duplicate", f"the id is used by row {ids[row.id] + 1} already")
        ids.setdefault(row.id, index)
        key = (_asked(row), row.output)
        if key in seen:
            yield Problem(index, row.id, "duplicate", f"same question, passages and target as row {seen[key]!r}")
        seen.setdefault(key, row.id)


def _asked(row: TrainingRow) -> tuple[str, tuple[str, ...]]:
    return question_key(row.question), tuple(p.chunk.sha256 for p in row.passages)


def _conflicts(rows: Sequence[TrainingRow], contract: Contract) -> Iterator[Problem]:
    """Rows of one question that cannot both be right: same passages, or passages that hold the other's quote.

    A twin is no conflict: its question is the same, but its passage holds another quote.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[question_key(row.question)].append(index)
    for group in groups.values():
        for index in group:
            row = rows[index]
            other = next((rows[o] for o in group if o != index and _contradicts(row, rows[o], contract)), None)
            if other is None:
                continue
            if row.output_object == REFUSAL:
                what = f"the target refuses, but the passages hold the quote that answers row {other.id!r}"
                yield Problem(index, row.id, "refusal", what)
            else:
                yield Problem(index, row.id, "conflict", f"row {other.id!r} has the same question and another target")


def _contradicts(row: TrainingRow, other: TrainingRow, contract: Contract) -> bool:
    """Whether `other`'s answer can be read in `row`'s passages and is not `row`'s answer."""
    if row.output_object is None or other.output_object is None:
        return False
    if _asked(row) == _asked(other) and row.output != other.output:
        return True
    if other.output_object == REFUSAL or _facts(row, contract) == _facts(other, contract):
        return False
    quotes = [quote for _, quote, _, _ in quote_pairs(contract, other.output_object) if isinstance(quote, str)]
    held = [any(quote in p.chunk.text for p in row.passages) for quote in quotes]
    return bool(held) and all(held)


def _facts(row: TrainingRow, contract: Contract) -> list[tuple[Any, Any]]:
    """Leaves of the target but for quotes and sources: two passages may say the same in other words."""
    skip = {*contract.quote_paths, *contract.source_paths}
    return [(path, leaf) for path, leaf in scalars(row.output_object) if path not in skip]


def _leaks(rows: Sequence[TrainingRow], held_out: Sequence[Case]) -> Iterator[Problem]:
    asked = {question_key(case.question): case.id for case in held_out}
    for index, row in enumerate(rows):
        if case := asked.get(question_key(row.question)):
            detail = f"the question is that of held-out case {case!r}; a score on it would measure memory"
            yield Problem(index, row.id, "leak", detail)
