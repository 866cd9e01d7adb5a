"""What single parts of the search are worth: headers, copies told apart, selection within a budget of tokens.

Knows nothing of reports. Every measurement compares ways of doing one thing over the same questions, in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from factform.answer import select
from factform.facts.rows import search_text
from factform.facts.search import DEFAULT_RANKING
from factform.facts.store import DataLayer
from factform.ids import sha256_text
from factform.measure.intervals import mean_interval, paired_difference, rate_interval
from factform.measure.metrics import ndcg_at
from factform.records import Chunk, Hit, as_json
from harness.copies import CHANGED, Copies, loosely_apart, lost, places, with_copies
from harness.encoded import KeptEncoder
from harness.judged import JudgedSet

DOCUMENTS = 2000
"""Of a larger set only so many documents are taken in again, those that are right among them."""

PASSAGES = 4
"""As many as a plain question is answered from by default."""

BUDGETS = (320, 640)
NEAR = 0.2
"""What a passage loses in maximal marginal relevance by being as near as can be to one already taken."""


@contextmanager
def without_headers() -> Iterator[None]:
    """Chunks without title and heading path in what is embedded, searched for and reranked."""
    real = Chunk.header
    Chunk.header = property(lambda chunk: "")  # type: ignore[misc, assignment, method-assign]
    try:
        yield
    finally:
        Chunk.header = real  # type: ignore[method-assign]


def filled(judged: JudgedSet, folder: Path, encoder: KeptEncoder) -> DataLayer:
    """A store with all documents of the set."""
    layer = DataLayer.open(folder, encoder)
    held = {info.document for info in layer.documents()}
    layer.add([source for source in judged.sources if source.document not in held])
    return layer


def smaller(judged: JudgedSet) -> JudgedSet:
    """A set of at most DOCUMENTS documents, with every one that is right for some question."""
    if len(judged.sources) <= DOCUMENTS:
        return judged
    right = {document for grades in judged.qrels.values() for document in grades}
    ranked = sorted(judged.sources, key=lambda s: (s.document not in right, sha256_text(s.document)))
    return replace(judged, name=f"{judged.name}_{DOCUMENTS}", sources=tuple(ranked[:DOCUMENTS]))


def found(layer: DataLayer, judged: JudgedSet, asked: Sequence[str], *, distinct: bool = False) -> list[list[Hit]]:
    """The hits of each question. Where questions are documents, a question does not find itself."""
    n = DEFAULT_RANKING.candidates
    return [
        [hit for hit in layer.search(judged.queries[query], k=n, distinct=distinct).hits if hit.chunk.document != query]
        for query in asked
    ]


def headers(judged: JudgedSet, cache: Path, encoder: KeptEncoder, asked: Sequence[str]) -> dict[str, Any]:
    """nDCG@10 of the default, with contextual headers and without."""

    def ndcg(layer: DataLayer) -> list[float]:
        orders = [list(dict.fromkeys(h.chunk.document for h in hits)) for hits in found(layer, judged, asked)]
        return [ndcg_at(order, judged.qrels[query], 10) for order, query in zip(orders, asked, strict=True)]

    with filled(judged, cache / "stores" / judged.name, encoder) as layer:
        whole = ndcg(layer)
    with without_headers(), filled(judged, cache / "stores" / f"{judged.name}-bare", encoder) as layer:
        bare = ndcg(layer)
    return {**compared({"with": whole, "without": bare}, "with"), "n": len(asked)}


def copies(judged: JudgedSet, cache: Path, encoder: KeptEncoder, asked: Sequence[str]) -> dict[str, Any]:
    """A fifth of the documents is there twice: what the first passages hold as ranked, with copies told apart by their
    words, and by a looser rule. A place that repeats a document is worth nothing."""
    made = with_copies(judged)
    with filled(made.judged, cache / "stores" / made.judged.name, encoder) as layer:
        plain = found(layer, made.judged, asked)
        distinct = found(layer, made.judged, asked, distinct=True)
    arms = {"as ranked": plain, "same words": distinct, "looser": [loosely_apart(hits) for hits in plain]}
    qrels = [judged.qrels[query] for query in asked]
    told: dict[str, Any] = {
        "ndcg@10": compared(
            {
                arm: [ndcg_at(places(hits, made), grades, 10) for hits, grades in zip(lists, qrels, strict=True)]
                for arm, lists in arms.items()
            },
            "same words",
        ),
        "documents": counted(arms, lambda hits: len({made.original(h.chunk.document) for h in hits[:PASSAGES]})),
        "repeats": counted(arms, lambda hits: repeats(hits[:PASSAGES], made)),
        "right": {arm: rated(lists, qrels, made.original) for arm, lists in arms.items()},
    }
    pairs = {arm: [lost(b, a, made) for b, a in zip(plain, lists, strict=True)] for arm, lists in arms.items()}
    told["changed"] = {
        arm: {"pairs": sum(p for p, _ in of), "lost": sum(n for _, n in of)} for arm, of in pairs.items()
    }
    kinds = [kind for _, kind in made.of.values()]
    return {**told, "copies": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}, "n": len(asked)}


def repeats(hits: Sequence[Hit], made: Copies) -> int:
    """Hits of a document of which another copy is among those before it."""
    seen: dict[str, str] = {}
    again = 0
    for hit in hits:
        original = made.original(hit.chunk.document)
        again += seen.setdefault(original, hit.chunk.document) != hit.chunk.document
    return again


def budget(judged: JudgedSet, cache: Path, encoder: KeptEncoder, asked: Sequence[str]) -> dict[str, Any]:
    """Share of questions with a right document among the passages, by how they are chosen under a budget of tokens."""
    with filled(judged, cache / "stores" / judged.name, encoder) as layer:
        lists = found(layer, judged, asked)
    qrels = [judged.qrels[query] for query in asked]
    sizes = {search_text(h.chunk): 0 for hits in lists for h in hits}
    sizes = {text: encoder.count_tokens(text) for text in sizes}
    told: dict[str, Any] = {}
    for tokens in BUDGETS:
        arms = {name: [choose(hits, tokens, sizes, encoder) for hits in lists] for name, choose in SELECTIONS.items()}
        told[str(tokens)] = {
            "right": compared({arm: among(chosen, qrels) for arm, chosen in arms.items()}, "best that fit"),
            "documents": counted(arms, lambda hits: len({h.chunk.document for h in hits})),
            "tokens": counted(arms, lambda hits: sum(sizes[search_text(h.chunk)] for h in hits)),
        }
    return {"budgets": told, "n": len(asked)}


Sizes = Mapping[str, int]
Choose = Callable[[Sequence[Hit], int, Sizes, KeptEncoder], list[Hit]]


def best_that_fit(hits: Sequence[Hit], tokens: int, sizes: Sizes, encoder: KeptEncoder) -> list[Hit]:
    """What the product does."""
    return [hit for hit in select(hits, len(hits), tokens, lambda text: sizes[text.removeprefix("\n")]) if hit.kept]


def until_full(hits: Sequence[Hit], tokens: int, sizes: Sizes, encoder: KeptEncoder) -> list[Hit]:
    chosen: list[Hit] = []
    for hit in hits:
        tokens -= sizes[search_text(hit.chunk)]
        if tokens < 0:
            break
        chosen.append(hit)
    return chosen


def one_of_each(hits: Sequence[Hit], tokens: int, sizes: Sizes, encoder: KeptEncoder) -> list[Hit]:
    first = {hit.chunk.document: hit for hit in reversed(hits)}
    return best_that_fit([hit for hit in hits if first[hit.chunk.document] is hit], tokens, sizes, encoder)


def marginal(hits: Sequence[Hit], tokens: int, sizes: Sizes, encoder: KeptEncoder) -> list[Hit]:
    """Maximal marginal relevance: what is near to a passage already taken loses."""
    vectors = encoder.encode([search_text(hit.chunk) for hit in hits])
    near, left = np.zeros(len(hits)), list(range(len(hits)))
    chosen: list[Hit] = []
    while left:
        place = max(left, key=lambda i: (hits[i].score - NEAR * near[i], -i))
        left.remove(place)
        if (size := sizes[search_text(hits[place].chunk)]) <= tokens:
            tokens -= size
            chosen.append(hits[place])
            near = np.maximum(near, vectors @ vectors[place])
    return chosen


SELECTIONS: Mapping[str, Choose] = {
    "best that fit": best_that_fit,
    "until one does not fit": until_full,
    "one of each document": one_of_each,
    "marginal relevance": marginal,
}


def among(chosen: Sequence[Sequence[Hit]], qrels: Sequence[Mapping[str, int]]) -> list[float]:
    """1 for each question with a right document among its passages, else 0."""
    pairs = zip(chosen, qrels, strict=True)
    return [float(any(grades.get(h.chunk.document, 0) > 0 for h in hits)) for hits, grades in pairs]


def rated(
    lists: Sequence[Sequence[Hit]], qrels: Sequence[Mapping[str, int]], original: Callable[[str], str]
) -> dict[str, Any]:
    """Share of questions with a right document, or a copy of one, among the first passages."""
    pairs = zip(lists, qrels, strict=True)
    values = [float(any(g.get(original(h.chunk.document), 0) > 0 for h in hits[:PASSAGES])) for hits, g in pairs]
    return dict(as_json(rate_interval(values)))


def compared(values: Mapping[str, Sequence[float]], base: str) -> dict[str, Any]:
    """Each arm's mean, and what `base` has over it."""
    means = {arm: as_json(rate_interval(each)) for arm, each in values.items()}
    more = {arm: as_json(paired_difference(values[base], each)) for arm, each in values.items() if arm != base}
    return {"arms": means, "base": base, "base_minus": more}


def counted(arms: Mapping[str, Sequence[Sequence[Hit]]], of: Callable[[Sequence[Hit]], float]) -> dict[str, Any]:
    return {arm: as_json(mean_interval([float(of(hits)) for hits in lists])) for arm, lists in arms.items()}


PARTS: Mapping[str, Callable[[JudgedSet, Path, KeptEncoder, Sequence[str]], dict[str, Any]]] = {
    "headers": headers,
    "copies": copies,
    "budget": budget,
}

__all__ = ["CHANGED", "PARTS", "SELECTIONS"]
