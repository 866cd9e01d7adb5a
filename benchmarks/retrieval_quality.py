"""How well the search ranks: nDCG@10, recall@50 and MRR@10 on judged sets, part by part.

    python benchmarks/retrieval_quality.py --data DATA --cache build/retrieval      # the sets that are reported
    python benchmarks/retrieval_quality.py --data DATA --cache build/retrieval --choosing
    python benchmarks/retrieval_quality.py --render             # the tables of docs/design/ranking.md

DATA is the folder of public sets beside the checkout; without it there is nothing to measure. Corpora are taken in by
the data layer itself, embedded once and kept in the cache, so that another way of ranking costs seconds. Nothing is
chosen on the reported sets; `--choosing` measures those on which weights and parts were chosen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness.encoded import KeptEncoder
from harness.judged import CHOOSING, REPORTED, JudgedSet

from factform.facts.embed import Embedder
from factform.facts.index import Found, search_text
from factform.facts.rerank import best_matches
from factform.facts.rerank import rerank as reranked
from factform.facts.search import DEFAULT_RANKING, Asked, Scored, fuse, reordered
from factform.facts.store import DataLayer
from factform.facts.visible import Visible
from factform.measure.intervals import paired_difference, rate_interval
from factform.measure.metrics import mrr_at, ndcg_at, recall_at
from factform.measure.report import environment, write_report
from factform.model.fetch import DEFAULT_EMBEDDER, fetch_model
from factform.records import as_json

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "retrieval_quality.json"
PAGE = ROOT / "docs" / "design" / "ranking.md"
METRICS: Mapping[str, Callable[[Sequence[str], Mapping[str, int]], float]] = {
    "ndcg@10": lambda order, grades: ndcg_at(order, grades, 10),
    "recall@50": lambda order, grades: recall_at(order, grades, 50),
    "mrr@10": lambda order, grades: mrr_at(order, grades, 10),
}
LABELS = {
    "bm25": "words alone (BM25)",
    "dense": "vectors alone",
    "rrf": "reciprocal rank fusion, 60",
    "convex": "convex, 0.3 words",
    "maxsim_even": "and late interaction, every token alike",
    "default": "and late interaction, tokens that stand out (the default)",
    "adaptive": "the default, words' weight by how much the lists agree",
}


def arms(layer: DataLayer, encoder: KeptEncoder, question: str) -> dict[str, list[str]]:
    """Documents in order, by arm. All arms have the same candidates; the default is the data layer's own."""
    asked = Asked(question, *encoder.encode_query(question))
    found = layer._candidates(question, asked.vector, DEFAULT_RANKING.candidates, Visible(None))
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
    best = best_matches(asked.tokens, [encoder.tokens_of(search_text(item.row.chunk)) for item in head])
    return reordered(fused, [float(x) for x in best.mean(1)] if best.size else [], "maxsim", 0.5)


def _adaptive(found: Sequence[Found], asked: Asked, layer: DataLayer) -> list[Scored]:
    """The words weigh 0.1 to 0.5 as the ten best of both lists are the same."""
    words = sorted(found, key=lambda f: (-f.bm25, f.row.chunk.id))[:10]
    near = sorted(found, key=lambda f: (-float(f.vector @ asked.vector), f.row.chunk.id))[:10]
    both = {f.row.chunk.id for f in words if f.bm25 > 0} & {f.row.chunk.id for f in near}
    weight = 0.1 + 0.4 * len(both) / max(len(near), 1)
    return reranked(fuse(found, asked.vector, weight), asked, layer._reranker, DEFAULT_RANKING.depth)[0]


def measure(judged: JudgedSet, cache: Path, limit: int) -> dict[str, Any]:
    """Every arm on one set, each compared with the default."""
    base = judged.name.removesuffix("_train")
    encoder = KeptEncoder(Embedder.open(fetch_model(DEFAULT_EMBEDDER).folder), cache / "encoded" / base)
    with DataLayer.open(cache / "stores" / base, encoder) as layer:
        held = {info.document for info in layer.documents()}
        receipts = layer.add([source for source in judged.sources if source.document not in held])
        failed = [receipt.document for receipt in receipts if receipt.status == "failed"]
        asked = sorted(judged.queries)[: limit or None]
        ranked = {query: arms(layer, encoder, judged.queries[query]) for query in asked}
        _checked(layer, judged, asked[:5], ranked)
        chunks = layer.status()["chunks"]
    scores: dict[str, dict[str, list[float]]] = {}
    for name in LABELS:
        orders = [[d for d in ranked[query][name] if d != query] for query in asked]
        pairs = list(zip(orders, (judged.qrels[query] for query in asked), strict=True))
        scores[name] = {metric: [of(order, grades) for order, grades in pairs] for metric, of in METRICS.items()}
    table = {
        name: {metric: as_json(rate_interval(values)) for metric, values in found.items()}
        for name, found in scores.items()
    }
    ndcg = {name: found["ndcg@10"] for name, found in scores.items()}
    against = {n: as_json(paired_difference(ndcg["default"], v)) for n, v in ndcg.items() if n != "default"}
    counts = {"documents": len(judged.sources), "failed": len(failed), "chunks": chunks, "n": len(asked)}
    return {**counts, "arms": table, "default_minus": against}


def _checked(layer: DataLayer, judged: JudgedSet, asked: Sequence[str], ranked: Mapping[str, Any]) -> None:
    """The arm "default" must be what a search gives."""
    for query in asked:
        hits = layer.search(judged.queries[query], k=DEFAULT_RANKING.candidates).hits
        order = list(dict.fromkeys(hit.chunk.document for hit in hits))
        assert order[:10] == ranked[query]["default"][:10], f"{judged.name} {query}: the arm differs from the search"


def render(report: Mapping[str, Any]) -> str:
    """Two Markdown tables: the reported sets, and the paired differences of the default."""
    sets = report["sets"]
    head = [f"{name} (n={one['n']})" for name, one in sets.items()]
    lines = [f"| nDCG@10 | {' | '.join(head)} |", f"|---|{'---:|' * len(head)}"]
    for arm, label in LABELS.items():
        cells = [one["arms"][arm]["ndcg@10"] for one in sets.values()]
        lines.append(f"| {label} | {' | '.join(_cell(cell) for cell in cells)} |")
    lines += ["", f"| the default minus | {' | '.join(head)} |", f"|---|{'---:|' * len(head)}"]
    for arm, label in LABELS.items():
        if arm != "default":
            cells = [one["default_minus"][arm] for one in sets.values()]
            lines.append(f"| {label} | {' | '.join(_cell(cell, '+') for cell in cells)} |")
    return "\n".join(lines)


def _cell(cell: Mapping[str, float], sign: str = "") -> str:
    return f"{cell['value']:{sign}.3f} [{cell['low']:{sign}.3f}, {cell['high']:{sign}.3f}]"


def write_page() -> None:
    """The tables between their marks in docs/design/ranking.md."""
    text = PAGE.read_text("utf-8")
    start, end = "<!-- reported -->", "<!-- end of reported -->"
    before, _, rest = text.partition(start)
    table = render(json.loads(RESULT.read_text("utf-8")))
    text = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(text, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "retrieval")
    parser.add_argument("--choosing", action="store_true")
    parser.add_argument("--sets", default="", help="only these, separated by commas")
    parser.add_argument("--limit", type=int, default=0, help="questions of each set; 0: all")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args()
    if args.render:
        write_page()
        return 0
    if args.data is None or not args.data.is_dir():
        print("there are no judged sets: give their folder with --data", file=sys.stderr)
        return 2
    known = CHOOSING if args.choosing else REPORTED
    out = RESULT.with_name("retrieval_choosing.json") if args.choosing else RESULT
    np.seterr(all="raise", under="ignore")
    found = {}
    for name in args.sets.split(",") if args.sets else known:
        found[name] = measure(known[name](args.data), args.cache, args.limit)
        print(name, {arm: round(v["ndcg@10"]["value"], 4) for arm, v in found[name]["arms"].items()}, flush=True)
        body = {"sets": found, "embedder": DEFAULT_EMBEDDER, "limit": args.limit, "environment": environment()}
        write_report(out, body)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
