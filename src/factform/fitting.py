"""Fit how candidates are ranked on the user's own cases, and say whether that beats the default on cases held out.

Knows nothing of how a search works: it sees `(question, rankings) -> documents in order for each of them`.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from factform.errors import CaseError, SettingsError
from factform.facts.search import DEFAULT_RANKING, Ranking
from factform.groups import linked
from factform.measure.intervals import Interval, paired_difference, rate_interval
from factform.measure.metrics import ndcg_at, recall_at
from factform.records import Case, as_json

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
DEPTHS = (10, 30, 50)
FOLDS = 5
FEWEST = 10
TOP = 10

Rank = Callable[[str, Sequence[Ranking]], Sequence[Sequence[str]]]
"""A question's documents in order, under each ranking."""


@dataclass(frozen=True)
class FitReport:
    """What was fitted on `n` cases. `default` and `held_out` are nDCG@10 of the default and of whatever was best on the
    other folds, `difference` is paired; `recall` is recall@10 by the same names. `better`: the interval of the
    difference lies above 0; else the default is as good. `skipped` cases name no document or have no answer."""

    n: int
    skipped: int
    folds: int
    seed: int
    fitted: Ranking
    better: bool
    default: Interval
    held_out: Interval
    difference: Interval
    recall: Mapping[str, Interval]
    chosen: tuple[Ranking, ...]

    def as_json(self) -> dict[str, Any]:
        return dict(as_json(self))


def fit_ranking(
    cases: Sequence[Case],
    rank: Rank,
    *,
    default: Ranking = DEFAULT_RANKING,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FitReport:
    """Weight of the words and depth of reranking, cross-validated over folds that share no document.

    Raises CaseError where too few cases name the documents that hold their answer.
    """
    usable = [case for case in cases if case.answerable and case.documents]
    if len(usable) < FEWEST or len(groups := _groups(usable)) < 2:
        raise CaseError(
            f"{len(usable)} of {len(cases)} cases are answerable and name their documents; fitting needs {FEWEST}, "
            "about two documents at least: add `documents` to the cases"
        )
    rankings = choices(default)
    found = []
    for done, case in enumerate(usable, 1):
        found.append([_scores(case, documents) for documents in rank(case.question, rankings)])
        if progress:
            progress(done, len(usable))
    folds = _folds(usable, groups, seed)
    chosen = [_best(found, [i for i in range(len(usable)) if folds[i] != fold]) for fold in range(max(folds) + 1)]
    held = [found[i][chosen[folds[i]]] for i in range(len(usable))]
    plain = [scores[0] for scores in found]
    default_ndcg, held_ndcg = [s[0] for s in plain], [s[0] for s in held]
    difference = _known(paired_difference(held_ndcg, default_ndcg, seed=seed))
    best = _best(found, range(len(usable)))
    return FitReport(
        len(usable),
        len(cases) - len(usable),
        max(folds) + 1,
        seed,
        rankings[best],
        bool(difference.low > 0 and best),
        _known(rate_interval(default_ndcg, seed=seed)),
        _known(rate_interval(held_ndcg, seed=seed)),
        difference,
        {
            "default": _known(rate_interval([s[1] for s in plain], seed=seed)),
            "held_out": _known(rate_interval([s[1] for s in held], seed=seed)),
        },
        tuple(rankings[i] for i in chosen),
    )


def choices(default: Ranking) -> list[Ranking]:
    """The default, then every other pair of weight and depth."""
    depths = DEPTHS if default.rerank != "none" else (default.depth,)
    every = [replace(default, word_weight=weight, depth=depth) for weight in WEIGHTS for depth in depths]
    return [default, *(ranking for ranking in every if ranking != default)]


def _scores(case: Case, documents: Sequence[str]) -> tuple[float, float]:
    """nDCG@10 and recall@10 of documents in order, each counted where it comes first."""
    order = list(dict.fromkeys(documents))
    grades = dict.fromkeys(case.documents, 1)
    return ndcg_at(order, grades, TOP), recall_at(order, grades, TOP)


def _groups(cases: Sequence[Case]) -> list[int]:
    """A number for each case, the same for cases that share a document: what is learnt of one is known of the other."""
    roots = linked([case.documents for case in cases])
    return roots if len(set(roots)) > 1 else []


def _folds(cases: Sequence[Case], groups: Sequence[int], seed: int) -> list[int]:
    """The fold of each case: groups in random order, each to the fold that is smallest so far."""
    order = sorted(set(groups))
    random.Random(seed).shuffle(order)
    sizes = [0] * min(FOLDS, len(order))
    fold_of = {}
    for group in sorted(order, key=lambda g: -sum(one == g for one in groups)):
        fold_of[group] = sizes.index(min(sizes))
        sizes[fold_of[group]] += sum(one == group for one in groups)
    return [fold_of[group] for group in groups]


def _best(found: Sequence[Sequence[tuple[float, float]]], cases: Sequence[int]) -> int:
    """The ranking with the highest mean nDCG over `cases`; the earliest of equals, so the default where it ties."""
    means = [sum(found[i][ranking][0] for i in cases) / len(cases) for ranking in range(len(found[0]))]
    return max(range(len(means)), key=lambda ranking: (round(means[ranking], 9), -ranking))


def _known(interval: Interval | None) -> Interval:
    assert interval is not None  # there is at least one case
    return interval


def with_values(text: str, section: str, values: Mapping[str, float | int]) -> str:
    """The TOML `text` with `values` in `[section]`, everything else as it stands, comments included.

    Raises SettingsError, with the values to enter by hand, where the section is written in another form.
    """
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if re.match(rf"\s*\[{re.escape(section)}\]\s*(#.*)?$", line)]
    if not heads:
        lines += ["", f"[{section}]"]
        heads = [len(lines) - 1]
    start = heads[0]
    for name, value in values.items():
        end = next((i for i in range(start + 1, len(lines)) if lines[i].lstrip().startswith("[")), len(lines))
        old = next((i for i in range(start + 1, end) if re.match(rf"\s*{re.escape(name)}\s*=", lines[i])), None)
        if old is None:
            lines.insert(start + 1, f"{name} = {value}")
        else:
            note = re.search(r"\s+#.*$", lines[old])
            lines[old] = f"{name} = {value}{note[0] if note else ''}"
    made = "\n".join(lines) + "\n"
    try:
        held = tomllib.loads(made)[section]
    except tomllib.TOMLDecodeError:
        held = {}
    if any(held.get(name) != value for name, value in values.items()):
        wanted = ", ".join(f"{section}.{name} = {value}" for name, value in values.items())
        raise SettingsError(f"factform.toml has no table [{section}] that could be written to: enter {wanted} by hand")
    return made
