"""How well the evidence model reads on articles it never saw: spans, sources and refusals over retrieved passages.

    python recipes/reader/evaluate.py --rows build/reader/rows.jsonl --model build/reader/evidence-0 --split validation

The passages are the retriever's best, whether or not they hold the answer: a miss of the retriever counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from factform.facts.bert import read_bert_config
from factform.facts.calibration import Calibration, Candidate, Reading, candidates, right
from factform.facts.evidence import DEPTH, EvidenceModel, Member, pair_tokenizer, unpack
from factform.measure.intervals import rate_interval
from factform.measure.metrics import exact_match, loose_match, token_f1
from factform.measure.reliability import coverage_curve, expected_error, reliability
from factform.measure.report import environment
from factform.model.fetch import DEFAULT_EMBEDDER, fetch_model

NO_CALIBRATION = Calibration(1.0, 0.0, 0.0, 1.0, 0.0)
"""Of a run that is not finished: passages by span and answers logit, nothing refused."""


def load(paths: Sequence[Path]) -> EvidenceModel:
    """The model that `finish.py` wrote, if it is the only one of `paths`; else the runs in `paths` read together."""
    folder = fetch_model(DEFAULT_EMBEDDER).folder
    if len(paths) == 1 and (paths[0] / "evidence.json").exists():
        return EvidenceModel.open(paths[0], folder)
    members = [load_member(path, folder) for path in paths]
    return EvidenceModel(read_bert_config(folder), members, pair_tokenizer(folder), NO_CALIBRATION, "run")


def load_member(path: Path, folder: Path) -> Member:
    """A run, from its weights or, while it runs, its last checkpoint, over the embedder in `folder`."""
    base = {
        k.removeprefix("bert."): v.float()
        for k, v in load_file(folder / "model.safetensors").items()
        if v.is_floating_point()
    }
    finished = path / "evidence.safetensors"
    if finished.exists():
        tensors = load_file(finished)
    else:
        saved = json.loads((path / "checkpoint.json").read_text("utf-8"))
        print(f"step {saved['step']}")
        stored = load_file(path / saved["file"])
        tensors = {k.removeprefix("weight."): v for k, v in stored.items() if k.startswith("weight.")}
    return Member({**base, **unpack(tensors)})


def given(row: dict[str, Any], k: int) -> list[dict[str, Any]]:
    """The first `k` passages the retriever found."""
    return [p for p in row["passages"] if p["rank"] is not None][:k]


def alone(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the passage that holds its answer, or the first one about it, as if nothing else were found."""
    about = [p for p in row["passages"] if p["about"]]
    own = next((p for p in about if p["spans"]), about[0])
    return {**row, "passages": [{**own, "rank": 1}]}


def read_all(model: EvidenceModel, rows: Sequence[dict[str, Any]], k: int) -> list[list[Reading]]:
    """What the model reads in each question's passages."""
    read = []
    for number, row in enumerate(rows, 1):
        read.append(model.read(row["question"], [(p["header"], p["text"]) for p in given(row, k)]))
        if number % 50 == 0:
            print(f"\r{number}/{len(rows)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return read


def best(row: dict[str, Any], readings: Sequence[Reading], weight: float) -> Candidate:
    """The best span over the passages."""
    return candidates(readings, [p["text"] for p in given(row, len(readings))], weight)[0]


def predict(row: dict[str, Any], readings: Sequence[Reading], weight: float) -> dict[str, str]:
    """The words of the best span and the document it stands in; neither where no passage was found."""
    if not readings:
        return {"text": "", "document": ""}
    span = best(row, readings, weight)
    passage = given(row, len(readings))[span.passage]
    return {"text": passage["text"][span.start : span.end], "document": passage["document"]}


def auc(scores: Sequence[float], truth: Sequence[bool]) -> float:
    """Area under the ROC curve (Mann-Whitney)."""
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    rank_sum = sum(rank for rank, i in enumerate(order, 1) if truth[i])
    good = sum(truth)
    return (rank_sum - good * (good + 1) / 2) / max(1, good * (len(truth) - good))


def refused_at(scores: Sequence[float], truth: Sequence[bool], false: float) -> float:
    """Share of unanswerable questions refused when `false` of the answerable ones are."""
    good = sorted(s for s, t in zip(scores, truth, strict=True) if t)
    cut = good[int(false * len(good))]
    bad = [s for s, t in zip(scores, truth, strict=True) if not t]
    return sum(s < cut for s in bad) / max(1, len(bad))


def score(
    rows: Sequence[dict[str, Any]], read: Sequence[Sequence[Reading]], model: EvidenceModel, k: int
) -> dict[str, Any]:
    """Every measure over one split, with n and 95 % intervals. `released` counts a refused question as wrong."""
    weight, limit = model.calibration.answers_weight, model.calibration.refuse_below
    got = [predict(row, r, weight) for row, r in zip(rows, read, strict=True)]
    probability = [model.answerable(r) if r else 0.0 for r in read]
    truth = [bool(row["answerable"]) for row in rows]
    good = [(g, row, p >= limit) for g, row, p in zip(got, rows, probability, strict=True) if row["answers"]]
    f1 = [token_f1(g["text"], row["answers"]) for g, row, _ in good]
    rates = {
        "retrieved": [float(any(p["spans"] for p in given(row, k))) for _, row, _ in good],
        "exact_match": [float(exact_match(g["text"], row["answers"])) for g, row, _ in good],
        "token_f1": f1,
        "source_right": [float(g["document"] == row["document"]) for g, row, _ in good],
        "token_f1_released": [f * kept for f, (_, _, kept) in zip(f1, good, strict=True)],
        "source_right_of_released": [float(g["document"] == row["document"]) for g, row, kept in good if kept],
        "refusal": [float(p < limit) for p, t in zip(probability, truth, strict=True) if not t],
        "false_refusal": [float(p < limit) for p, t in zip(probability, truth, strict=True) if t],
    }
    sure = [right(model.calibration, best(row, r, weight)) if r else 0.0 for row, r in zip(rows, read, strict=True)]
    correct = [loose_match(g["text"], row["answers"]) for g, row in zip(got, rows, strict=True)]
    return {
        "n": len(rows),
        "passages": k,
        "confidence": confidence([p for p in sure if p is not None], correct) if None not in sure else None,
        **{name: asdict(interval) for name, values in rates.items() if (interval := rate_interval(values))},
        "auc": auc(probability, truth) if len(set(truth)) == 2 else None,
        "refusal_at_10_percent_false": refused_at(probability, truth, 0.1) if len(set(truth)) == 2 else None,
    }


def confidence(sure: Sequence[float], correct: Sequence[float]) -> dict[str, Any]:
    """How well the probability of being right holds, over all questions, none refused: the unanswerable ones count as
    wrong. `curve` is what a user's limit gives: the share of questions answered and of those the share right."""
    return {
        "n": len(sure),
        "right": sum(correct) / len(correct),
        "expected_calibration_error": expected_error(sure, correct),
        "auc": auc(sure, [bool(c) for c in correct]),
        "reliability": [asdict(b) for b in reliability(sure, correct)],
        "curve": [asdict(p) for p in coverage_curve(sure, correct, [i / 20 for i in range(20)])],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="what finish.py wrote, or runs' folders")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--sets", default="squad_v1,squad_v2")
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("-k", type=int, default=DEPTH, help="passages read")
    parser.add_argument("--own", action="store_true", help="give the question's own passage alone: what reading limits")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="a file for the report as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with args.rows.open(encoding="utf-8") as lines:
        rows = [r for r in map(json.loads, lines) if r["split"] == args.split and r["set"] in args.sets.split(",")]
    rows = random.Random(0).sample(rows, min(args.n, len(rows)))
    if args.own:
        rows = [alone(row) for row in rows]
    model = load(args.model)
    started = time.perf_counter()
    read = read_all(model, rows, args.k)
    report = {
        "split": args.split,
        "sets": args.sets,
        "own_passage_alone": args.own,
        "model": model.digest,
        "ms_a_question": 1e3 * (time.perf_counter() - started) / len(rows),
        **score(rows, read, model, args.k),
        "environment": {**environment(), "threads": args.threads},
    }
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
