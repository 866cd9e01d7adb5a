"""The two shares of the ranking, words' and late interaction's, tried on a grid over the sets meant for choosing.

Knows nothing of reported sets. Each question is searched once; every pair of shares is arithmetic on what it found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factform.facts.rerank import EVEN, WEIGHT
from factform.facts.rows import search_text
from factform.facts.search import BM25_WEIGHT, DEFAULT_RANKING
from factform.facts.store import DataLayer, View
from factform.facts.tokenbits import best_matches
from factform.facts.visible import Visible
from factform.measure.intervals import paired_difference
from factform.measure.metrics import ndcg_at
from factform.records import as_json
from harness.encoded import KeptEncoder
from harness.judged import JudgedSet

WORDS = tuple(round(0.05 * step, 2) for step in range(1, 11))
LATE = tuple(round(0.1 * step, 2) for step in range(9))
PRESENT = (BM25_WEIGHT, WEIGHT)

Grid = NDArray[np.float64]
"""nDCG@10 by words' share, late share and question."""


@dataclass(frozen=True)
class Seen:
    """A question's candidates in the order of their ids: documents, scores, best matches [candidates, tokens]."""

    documents: tuple[str, ...]
    words: NDArray[np.float64]
    dense: NDArray[np.float64]
    best: NDArray[np.float64]


def seen(layer: DataLayer, encoder: KeptEncoder, question: str) -> Seen:
    vector, tokens = encoder.encode_query(question)
    found = layer._candidates(question, vector, DEFAULT_RANKING.candidates, View(Visible()))
    found = sorted(found, key=lambda item: item.row.chunk.id)
    words = np.array([item.bm25 for item in found])
    dense = np.array([float(np.dot(item.vector, vector)) for item in found])
    best = best_matches(tokens, [encoder.bits_of(search_text(item.row.chunk)) for item in found])
    top = words.max(initial=0)
    return Seen(tuple(i.row.chunk.document for i in found), words / top if top else words, dense, best.astype(float))


def order(of: Seen, share: float, late: float) -> list[str]:
    """Documents as a search with these shares ranks them."""
    fused = share * of.words + (1 - share) * of.dense
    places = np.argsort(-fused, kind="stable")
    head = places[: DEFAULT_RANKING.depth]
    if late and of.best.size:
        best = of.best[head]
        weights = best.max(0) - best.mean(0) + EVEN
        mixed = (1 - late) * fused[head] + late * (best @ weights / weights.sum())
        # Ties by id, as everywhere: `head` is put back into that order first.
        again = sorted(range(len(head)), key=lambda i: (-mixed[i], head[i]))
        places = np.concatenate([head[again], places[DEFAULT_RANKING.depth :]])
    return list(dict.fromkeys(of.documents[i] for i in places))


def tried(layer: DataLayer, encoder: KeptEncoder, judged: JudgedSet, asked: Sequence[str]) -> Grid:
    grid = np.zeros((len(WORDS), len(LATE), len(asked)))
    for number, query in enumerate(asked):
        found = seen(layer, encoder, judged.queries[query])
        for i, share in enumerate(WORDS):
            for j, late in enumerate(LATE):
                documents = [d for d in order(found, share, late) if d != query]
                grid[i, j, number] = ndcg_at(documents, judged.qrels[query], 10)
    return grid


def fitted(grids: Mapping[str, Grid]) -> dict[str, Any]:
    """The pair with the best mean over sets, what it has over the present one, and how a pair chosen without a set does
    on that set."""
    means = {name: grid.mean(2) for name, grid in grids.items()}
    together = np.mean(list(means.values()), axis=0)
    best, now = _best(together), (WORDS.index(PRESENT[0]), LATE.index(PRESENT[1]))
    sets = {}
    for name, grid in grids.items():
        others = [mean for other, mean in means.items() if other != name]
        without = _best(np.mean(others, axis=0)) if others else best
        sets[name] = {
            "n": grid.shape[2],
            "present": float(means[name][now]),
            "best": float(means[name][best]),
            "best_minus_present": as_json(paired_difference(grid[best].tolist(), grid[now].tolist())),
            "chosen_without": pair(without),
            "without_minus_present": as_json(paired_difference(grid[without].tolist(), grid[now].tolist())),
        }
    table = {
        str(share): {str(late): float(together[i, j]) for j, late in enumerate(LATE)} for i, share in enumerate(WORDS)
    }
    return {"present": pair(now), "best": pair(best), "mean": table, "sets": sets}


def pair(at: tuple[int, int]) -> dict[str, float]:
    return {"words": WORDS[at[0]], "late": LATE[at[1]]}


def _best(mean: NDArray[np.float64]) -> tuple[int, int]:
    i, j = np.unravel_index(int(mean.argmax()), mean.shape)
    return int(i), int(j)
