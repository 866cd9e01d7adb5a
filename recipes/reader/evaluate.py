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
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from factform.facts.bert import read_bert_config
from factform.facts.evidence import Calibration, EvidenceModel, Reading, pair_tokenizer
from factform.measure.metrics import exact_match, token_f1
from factform.model.fetch import DEFAULT_EMBEDDER, fetch_model

NO_CALIBRATION = Calibration(0.0, 0.0, 0.0, 0.0, 0.0)


def load(path: Path) -> EvidenceModel:
    """The model that `finish.py` wrote; or that of a run, from its weights or, while it runs, its last checkpoint."""
    folder = fetch_model(DEFAULT_EMBEDDER).folder
    if (path / "evidence.json").exists():
        return EvidenceModel.open(path, folder)
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
    weights = {name: tensor.float() for name, tensor in {**base, **tensors}.items()}
    return EvidenceModel(read_bert_config(folder), weights, pair_tokenizer(folder), NO_CALIBRATION, "run")


def given(row: dict[str, Any], k: int) -> list[dict[str, Any]]:
    """The first `k` passages the retriever found."""
    return [p for p in row["passages"] if p["rank"] is not None][:k]


def read_all(model: EvidenceModel, rows: Sequence[dict[str, Any]], k: int) -> list[list[Reading]]:
    """What the model reads in each question's passages."""
    read = []
    for number, row in enumerate(rows, 1):
        read.append(model.read(row["question"], [(p["header"], p["text"]) for p in given(row, k)]))
        if number % 50 == 0:
            print(f"\r{number}/{len(rows)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return read


def predict(row: dict[str, Any], readings: Sequence[Reading], weight: float) -> dict[str, Any]:
    """The best span over the passages, and what speaks for there being an answer."""
    passages = given(row, len(readings))
    choices = [(r.spans[0][2] + weight * r.answers, -i) for i, r in enumerate(readings) if r.spans]
    i = -max(choices)[1]
    start, end, score = readings[i].spans[0]
    return {
        "text": passages[i]["text"][start:end],
        "document": passages[i]["document"],
        "margin": score - max(r.none for r in readings),
        "answers": max(r.answers for r in readings),
        "answers_of_best": readings[i].answers,
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--sets", default="squad_v1,squad_v2")
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("-k", type=int, default=5, help="passages read")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with args.rows.open(encoding="utf-8") as lines:
        rows = [r for r in map(json.loads, lines) if r["split"] == args.split and r["set"] in args.sets.split(",")]
    rows = random.Random(0).sample(rows, min(args.n, len(rows)))
    model = load(args.model)
    started = time.perf_counter()
    read = read_all(model, rows, args.k)
    ms = 1e3 * (time.perf_counter() - started) / len(rows)
    truth = [r["answerable"] for r in rows]
    found = [any(p["about"] and p["rank"] and p["rank"] <= args.k for p in r["passages"]) for r in rows]
    retrieved = f"own passage retrieved {sum(found) / len(rows):.3f}"
    print(f"n={len(rows)} answerable={sum(truth)} {retrieved} ms={ms:.0f}")
    for weight in (0.0, 0.5, 1.0, 2.0):
        got = [predict(row, r, weight) for row, r in zip(rows, read, strict=True)]
        good = [(g, r) for g, r in zip(got, rows, strict=True) if r["answers"]]
        em = sum(exact_match(g["text"], r["answers"]) for g, r in good) / len(good)
        f1 = sum(token_f1(g["text"], r["answers"]) for g, r in good) / len(good)
        source = sum(g["document"] == r["document"] for g, r in good) / len(good)
        line = f"weight {weight}: EM {em:.3f} F1 {f1:.3f} source {source:.3f} |"
        for name in ("margin", "answers", "answers_of_best"):
            scores = [g[name] for g in got]
            line += f" {name} AUC {auc(scores, truth):.3f} refused@.10 {refused_at(scores, truth, 0.1):.2f};"
        both = [g["margin"] + g["answers_of_best"] for g in got]
        print(line + f" sum AUC {auc(both, truth):.3f} refused@.10 {refused_at(both, truth, 0.1):.2f}")


if __name__ == "__main__":
    main()
