"""The scores: SQuAD exact match and F1, fields of a contract object, support of a quote, and ranking measures.

Knows nothing of who answered or ranked. Everything is a pure function of plain values.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from factform.jsonvalue import Path, dotted, leaves, value_at

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_GROUPED = re.compile(r"(?<![\d.])(?<!\d,)\d{1,3}(?:[,'’\u00a0\u2009\u202f]\d{3})+(?!,?\d)")
_DECIMALS = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?![\d.]*\d)")


# --- short answers: SQuAD -------------------------------------------------------------------


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces (Rajpurkar et al., 2016)."""
    bare = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if `prediction` is one of `answers` after normalisation, else 0.

    As in SQuAD 2.0, answers that normalise to nothing do not count, and with none left the question is
    unanswerable: then the empty prediction is right, and only that.
    """
    return max(float(normalize_answer(prediction) == gold) for gold in _golds(answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Harmonic mean of token precision and recall, best over `answers`; unanswerable as in `exact_match`."""
    return max(_f1(normalize_answer(prediction).split(), gold.split()) for gold in _golds(answers))


def loose_match(prediction: str, answers: Sequence[str]) -> float:
    """1 where `prediction` is right for a reader: it holds one of `answers`, or is held in one, word for word.

    "in 1867" and "1867" match, "63.8 million" and "61.2 million" do not. 0 where there is no answer.
    """
    return float(any(holds(prediction, gold) or holds(gold, prediction) for gold in answers))


def _golds(answers: Sequence[str]) -> Sequence[str]:
    return [gold for gold in map(normalize_answer, answers) if gold] or [""]


def _f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = (Counter(predicted) & Counter(gold)).total()
    return 2 * common / (len(predicted) + len(gold))


# --- contract objects -----------------------------------------------------------------------


def property_names(path: Path) -> tuple[str, ...]:
    """The path as a contract names it: without list positions."""
    return tuple(step for step in path if isinstance(step, str))


def field_scores(
    expected: Mapping[str, Any], got: Mapping[str, Any] | None, ignore_paths: Collection[tuple[str, ...]] = ()
) -> dict[str, bool]:
    """For every leaf of `expected`, by its path ("items[0].price"), whether `got` has the same there.

    Same: equal after Unicode NFC and stripping for texts; numbers by value (1 is 1.0, but true is not 1). Nothing
    else is forgiven. Items that a list of `got` has beyond the expected ones are wrong leaves too: a list is stated
    whole. Properties that `expected` does not mention are not judged. `ignore_paths` are names as in a Contract.
    """
    ignored = {property_names(path) for path in ignore_paths}
    scores = {}
    for path, value in leaves(expected):
        if property_names(path) not in ignored:
            scores[dotted(path)] = _equal(value, value_at(got, path, _MISSING))
    for path in _extra_items(expected, got):
        if not any(property_names(path)[: len(names)] == names for names in ignored):
            scores[dotted(path)] = False
    return scores


def field_accuracy(
    expected: Mapping[str, Any], got: Mapping[str, Any] | None, ignore_paths: Collection[tuple[str, ...]] = ()
) -> float | None:
    """Share of `field_scores` that are right, 0 for no answer; None if there is no leaf to judge."""
    scores = field_scores(expected, got, ignore_paths)
    return sum(scores.values()) / len(scores) if scores else None


_MISSING = object()


def _equal(expected: Any, got: Any) -> bool:
    if isinstance(expected, str) and isinstance(got, str):
        return _plain(expected) == _plain(got)
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return expected == got
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        return len(expected) == len(got) == 0
    return type(expected) is type(got) and bool(expected == got)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _extra_items(expected: Any, got: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        for key in expected:
            if key in got:
                yield from _extra_items(expected[key], got[key], (*path, key))
    elif isinstance(expected, list | tuple) and expected and isinstance(got, list | tuple):
        for position, item in enumerate(got):
            if position >= len(expected):
                yield (*path, position)
            else:
                yield from _extra_items(expected[position], item, (*path, position))


# --- quotes ---------------------------------------------------------------------------------


def support_tokens(text: str) -> tuple[str, ...]:
    """Words and numbers of `text`, so that the same fact written twice gives the same tokens.

    SQuAD's normalisation, except where it would join or split facts: thousands separators go ("1,480" is 1480),
    decimal points stay ("12.5" is not 125), trailing zeros of decimals go, and every other punctuation mark or symbol
    separates ("€1,480" and "3-month" hold 1480 and 3).
    """
    text = unicodedata.normalize("NFC", text).lower()
    text = _GROUPED.sub(lambda match: "".join(c for c in match[0] if c.isdigit()), text)
    text = _DECIMALS.sub(_decimal, text)
    spaced = "".join(" " if unicodedata.category(c)[0] in "PSZC" else c for c in text)
    return tuple(_ARTICLES.sub(" ", spaced).split())


def _decimal(match: re.Match[str]) -> str:
    fraction = match[2].rstrip("0")
    return f"{match[1]}point{fraction}" if fraction else match[1]


def holds(text: str, fact: str) -> bool:
    """Whether the tokens of `fact` stand in `text` one after another (so "3" is not in "2023")."""
    wanted, tokens = support_tokens(fact), support_tokens(text)
    return bool(wanted) and any(
        tokens[start : start + len(wanted)] == wanted for start in range(len(tokens) - len(wanted) + 1)
    )


def same_words(text: str, other: str) -> float:
    """Token F1 of two texts over `support_tokens`."""
    return _f1(support_tokens(text), support_tokens(other))


# --- rankings -------------------------------------------------------------------------------


def ndcg_at(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """Normalised discounted cumulative gain: gain is the grade, discount log2(rank + 1), as trec_eval's ndcg_cut.

    The ideal is over all judged documents, found or not; 0 if none is relevant. Grades below 0 gain nothing.
    """
    ideal = _dcg(sorted(relevance.values(), reverse=True)[:k])
    return _dcg([relevance.get(document, 0) for document in ranked[:k]]) / ideal if ideal else 0.0


def _dcg(grades: Sequence[int]) -> float:
    return sum(max(grade, 0) / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def recall_at(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """Share of the relevant documents (grade > 0) among the first `k`; 0 if none is relevant."""
    relevant = {document for document, grade in relevance.items() if grade > 0}
    return len(relevant.intersection(ranked[:k])) / len(relevant) if relevant else 0.0


def mrr_at(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """1 / rank of the first relevant document among the first `k`, 0 if there is none."""
    return next((1 / rank for rank, doc in enumerate(ranked[:k], start=1) if relevance.get(doc, 0) > 0), 0.0)
