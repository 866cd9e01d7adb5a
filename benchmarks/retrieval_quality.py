"""How well the search ranks: nDCG@10, recall@50 and MRR@10 on judged sets, part by part.

    python benchmarks/retrieval_quality.py --data DATA --cache build/retrieval      # the sets that are reported
    python benchmarks/retrieval_quality.py --data DATA --cache build/retrieval --ablations  # single parts, on and off
    python benchmarks/retrieval_quality.py --data DATA --cache build/retrieval --choosing   # shares, on other sets
    python benchmarks/retrieval_quality.py --render             # the tables of docs/design/ranking.md

DATA is the folder of public sets beside the checkout; without it there is nothing to measure. Corpora are taken in by
the data layer itself, embedded once and kept in the cache, so that another way of ranking costs seconds. Nothing is
chosen on the reported sets; `--choosing` tries the shares of words and late interaction on others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import quality
from harness.ablations import PARTS, filled, smaller
from harness.encoded import KeptEncoder
from harness.judged import ABLATED, CHOOSING, REPORTED, JudgedSet
from harness.shares import fitted, tried

from factform.facts.embed import Embedder
from factform.facts.index import Found
from factform.facts.rerank import rerank as reranked
from factform.facts.rows import search_text
from factform.facts.search import DEFAULT_RANKING, Asked, Scored, fuse, reordered
from factform.facts.store import DataLayer, View
from factform.facts.tokenbits import best_matches
from factform.facts.visible import Visible
from factform.measure.intervals import paired_difference, rate_interval
from factform.measure.metrics import mrr_at, ndcg_at, recall_at
from factform.measure.report import environment, write_report
from factform.model.fetch import DEFAULT_EMBEDDER, fetch_model
from factform.records import as_json

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "retrieval_quality.json"
ABLATIONS = RESULT.with_name("retrieval_ablations.json")
SHARES = RESULT.with_name("retrieval_shares.json")
PAGE = ROOT / "docs" / "design" / "ranking.md"
METRICS: Mapping[str, Callable[[Sequence[str], Mapping[str, int]], float]] = {
    "ndcg@10": lambda order, grades: ndcg_at(order, grades, 10),
    "recall@50": lambda order, grades: recall_at(order, grades, 50),
    "mrr@10": lambda order, grades: mrr_at(order, grades, 10),
}


def arms(layer: DataLayer, encoder: KeptEncoder, question: str) -> dict[str, list[str]]:
    """Documents in order, by arm. All arms have the same candidates; the default is the data layer's own."""
    asked = Asked(question, *encoder.encode_query(question))
    found = layer._candidates(question, asked.vector, DEFAULT_RANKING.candidates, View(Visible()))
    fused = fuse(found, asked.vector)
    best, _ = reranked(fused, asked, layer._reranker, DEFAULT_RANKING.depth)
    return {
        "bm25": _documents(sorted((f for f in found if f.bm25 > 0), key=lambda f: (-f.bm25, f.row.chunk.id))),
        "dense": _documents(sorted(found, key=lambda f: (-float(f.vector @ asked.vector), f.row.chunk.id))),
        "rrf": _documents(sorted(fused, key=lambda item: (-_rrf(item), item.row.chunk.id))),
        "convex": _documents(fused),
        "maxsim_even": _documents(_even(fused, asked, encoder)),
        "default": _documents(best),
        "adaptive": _documents(_adaptive(found, asked, layer)),
    }


def _documents(items: Sequence[Found | Scored]) -> list[str]:
    """Documents where they come first."""
    return list(dict.fromkeys(item.row.chunk.document for item in items))


def _rrf(item: Scored) -> float:
    n = DEFAULT_RANKING.candidates
    return sum(1 / (60 + item.ranks[stage]) for stage in ("bm25", "dense") if item.ranks.get(stage, n + 1) <= n)


def _even(fused: Sequence[Scored], asked: Asked, encoder: KeptEncoder) -> list[Scored]:
    """Late interaction as it was before: every token of the question weighs the same, half of the score."""
    head = fused[: DEFAULT_RANKING.depth]
    best = best_matches(asked.tokens, [encoder.bits_of(search_text(item.row.chunk)) for item in head])
    return reordered(fused, [float(x) for x in best.mean(1)] if best.size else [], "maxsim", 0.5)


def _adaptive(found: Sequence[Found], asked: Asked, layer: DataLayer) -> list[Scored]:
    """The words weigh 0.1 to 0.5 as the ten best of both lists are the same."""
    words = sorted(found, key=lambda f: (-f.bm25, f.row.chunk.id))[:10]
    near = sorted(found, key=lambda f: (-float(f.vector @ asked.vector), f.row.chunk.id))[:10]
    both = {f.row.chunk.id for f in words if f.bm25 > 0} & {f.row.chunk.id for f in near}
    weight = 0.1 + 0.4 * len(both) / max(len(near), 1)
    return reranked(fuse(found, asked.vector, weight), asked, layer._reranker, DEFAULT_RANKING.depth)[0]


def opened(name: str, cache: Path) -> KeptEncoder:
    return KeptEncoder(Embedder.open(fetch_model(DEFAULT_EMBEDDER).folder), cache / "encoded" / name)


def measure(judged: JudgedSet, cache: Path, limit: int) -> dict[str, Any]:
    """Every arm on one set, each compared with the default."""
    encoder = opened(judged.name, cache)
    asked = sorted(judged.queries)[: limit or None]
    with filled(judged, cache / "stores" / judged.name, encoder) as layer:
        ranked = {query: arms(layer, encoder, judged.queries[query]) for query in asked}
        _checked(layer, judged, asked[:5], ranked)
        status = layer.status()
    scores: dict[str, dict[str, list[float]]] = {}
    for name in quality.LABELS:
        orders = [[d for d in ranked[query][name] if d != query] for query in asked]
        pairs = list(zip(orders, (judged.qrels[query] for query in asked), strict=True))
        scores[name] = {metric: [of(order, grades) for order, grades in pairs] for metric, of in METRICS.items()}
    table = {
        name: {metric: as_json(rate_interval(values)) for metric, values in found.items()}
        for name, found in scores.items()
    }
    ndcg = {name: found["ndcg@10"] for name, found in scores.items()}
    against = {n: as_json(paired_difference(ndcg["default"], v)) for n, v in ndcg.items() if n != "default"}
    counts = {"documents": status["documents"], "chunks": status["chunks"], "n": len(asked), "engine": encoder.engine}
    return {**counts, "arms": table, "default_minus": against}


def _checked(layer: DataLayer, judged: JudgedSet, asked: Sequence[str], ranked: Mapping[str, Any]) -> None:
    """The arm "default" must be what a search gives."""
    for query in asked:
        hits = layer.search(judged.queries[query], k=DEFAULT_RANKING.candidates).hits
        order = list(dict.fromkeys(hit.chunk.document for hit in hits))
        assert order[:10] == ranked[query]["default"][:10], f"{judged.name} {query}: the arm differs from the search"


def ablate(judged: JudgedSet, cache: Path, limit: int) -> dict[str, Any]:
    """Every part on one set."""
    encoder, asked = opened(judged.name, cache), sorted(judged.queries)[: limit or None]
    some = smaller(judged)
    found = {name: part(some, cache, encoder, asked) for name, part in PARTS.items()}
    return {"documents": len(some.sources), "of": len(judged.sources), **found}


def choose(cache: Path, data: Path, names: Sequence[str], limit: int) -> dict[str, Any]:
    """Pairs of shares on the sets that may be used for choosing. What was measured of a set is kept in the cache."""
    grids = {}
    for name in names:
        kept = cache / "grids" / f"{name}-{limit}.npy"
        if not kept.is_file():
            judged = CHOOSING[name](data)
            base = name.removesuffix("_train")
            encoder, asked = opened(base, cache), sorted(judged.queries)[: limit or None]
            with filled(judged, cache / "stores" / base, encoder) as layer:
                grid = tried(layer, encoder, judged, asked)
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, grid)
        grids[name] = np.load(kept)
        print(name, grids[name].shape, flush=True)
    return fitted(grids)


def write_page() -> None:
    """The tables between their marks in docs/design/ranking.md."""
    text = PAGE.read_text("utf-8")
    for name, table in tables().items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, there, rest = text.partition(start)
        if not there:
            raise ValueError(f"{PAGE.name} has no {start}")
        text = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(text, "utf-8")


def tables() -> dict[str, str]:
    """Every table of the page for which there is a result, by the name of its marks."""
    made = {"reported": (RESULT, quality.reported), "ablations": (ABLATIONS, quality.ablations)}
    made["shares"] = (SHARES, quality.shares)
    return {
        name: render(json.loads(path.read_text("utf-8"))) for name, (path, render) in made.items() if path.is_file()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "retrieval")
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--choosing", action="store_true")
    parser.add_argument("--sets", default="", help="only these, separated by commas")
    parser.add_argument("--limit", type=int, default=0, help="questions of each set; 0: all")
    parser.add_argument("--out", type=Path, help="the result, if not the committed one")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args()
    if args.render:
        write_page()
        return 0
    if args.data is None or not args.data.is_dir():
        print("there are no judged sets: give their folder with --data", file=sys.stderr)
        return 2
    np.seterr(all="raise", under="ignore")
    told = {"embedder": DEFAULT_EMBEDDER, "limit": args.limit}
    if args.choosing:
        names = args.sets.split(",") if args.sets else list(CHOOSING)
        body = choose(args.cache, args.data, names, args.limit)
        write_report(args.out or SHARES, {**body, **told, "environment": environment()})
        return 0
    found = {}
    known = ABLATED if args.ablations else REPORTED
    for name in args.sets.split(",") if args.sets else known:
        judged = REPORTED[name](args.data)
        if args.ablations:
            found[name] = ablate(judged, args.cache, args.limit)
        else:
            found[name] = measure(judged, args.cache, args.limit)
            print({arm: round(v["ndcg@10"]["value"], 4) for arm, v in found[name]["arms"].items()}, flush=True)
        print(name, "done", flush=True)
        out = args.out or (ABLATIONS if args.ablations else RESULT)
        write_report(out, {"sets": found, **told, "environment": environment()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
