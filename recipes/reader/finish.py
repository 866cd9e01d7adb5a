"""From a finished run to what ships: calibration fitted on the validation articles, weights in 8 bit, the card.

python recipes/reader/finish.py --rows build/reader/rows.jsonl --model build/reader/evidence-0 --out FOLDER

Several runs become one model whose logits are their mean (Lakshminarayanan et al. 2017, "Deep ensembles").
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate import given, load, predict, read_all
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize

from factform.facts.calibration import Calibration, Reading, candidates, features, logistic
from factform.facts.evidence import DEPTH, WEIGHTS, pack, unpack
from factform.ids import sha256_file
from factform.measure.metrics import loose_match, token_f1
from factform.model.fetch import DEFAULT_EMBEDDER, fetch_model

SHARES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
FALSE_REFUSALS = 0.10
SPANS = 3
"""Spans of a question that teach how likely a span is right: as many as are proposed with a behavior."""


def answers_weight(rows: Sequence[dict[str, Any]], readings: Sequence[Sequence[Reading]]) -> float:
    """The share of the answers logit in a passage's score that gives the best token F1."""

    def f1(weight: float) -> float:
        pairs = [(predict(row, read, weight), row) for row, read in zip(rows, readings, strict=True) if row["answers"]]
        return sum(token_f1(got["text"], row["answers"]) for got, row in pairs) / len(pairs)

    return max(SHARES, key=f1)


def logistic_regression(inputs: np.ndarray, truth: np.ndarray) -> list[float]:
    """Weights of the columns of `inputs`, the first of which is 1."""

    def loss(w: np.ndarray) -> float:
        z = inputs @ w
        return float(np.mean(np.logaddexp(0, z) - truth * z)) + 1e-4 * float(w @ w)

    weights: list[float] = minimize(loss, np.zeros(inputs.shape[1])).x.tolist()
    return weights


def fit(rows: Sequence[dict[str, Any]], readings: Sequence[Sequence[Reading]]) -> Calibration:
    """Logistic regressions of "the question has an answer" on margin and answers logit, and of "this span is right" on
    what is told of a span, over the best spans of every question."""
    inputs = np.array([[1.0, *features(r)] for r in readings])
    truth = np.array([float(row["answerable"]) for row in rows])
    bias, margin, answers = logistic_regression(inputs, truth)
    scores = sorted(logistic(float(f @ [bias, margin, answers])) for f, t in zip(inputs, truth, strict=True) if t)
    limit = scores[int(FALSE_REFUSALS * len(scores))]
    weight = answers_weight(rows, readings)
    told, hits = [], []
    for row, read in zip(rows, readings, strict=True):
        texts = [p["text"] for p in given(row, len(read))]
        for span in candidates(read, texts, weight)[:SPANS]:
            told.append(span.features)
            hits.append(loose_match(texts[span.passage][span.start : span.end], row["answers"]))
    right = logistic_regression(np.array(told), np.array(hits))
    return Calibration(weight, bias, margin, answers, round(limit, 4), tuple(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="one run, or several to be read together")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="the runs' seeds, for the card")
    parser.add_argument("-n", type=int, default=600, help="validation questions")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with args.rows.open(encoding="utf-8") as lines:
        rows = [r for r in map(json.loads, lines) if r["split"] == "validation" and r["set"].startswith("squad")]
    rows = random.Random(0).sample(rows, min(args.n, len(rows)))
    rows = [row for row in rows if given(row, 1)]  # a phrase in quotation marks may stand nowhere
    calibration = fit(rows, read_all(load(args.model), rows, DEPTH))
    args.out.mkdir(parents=True, exist_ok=True)
    names = [WEIGHTS, *(f"evidence-{number}.safetensors" for number in range(1, len(args.model)))]
    for run, name in zip(args.model, names, strict=True):
        save_file(pack(unpack(load_file(run / WEIGHTS))), args.out / name)
    embedder = fetch_model(DEFAULT_EMBEDDER).folder / "model.safetensors"
    card = {
        "embedder": DEFAULT_EMBEDDER,
        "embedder_sha256": sha256_file(embedder),
        "calibration": asdict(calibration),
        "calibrated_on": len(rows),
        "members": names,
        "seeds": args.seed,
    }
    (args.out / "evidence.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
