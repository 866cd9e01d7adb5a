"""How the same language model reads the same passages when LlamaIndex or Haystack prompts it, beside Factform.

    python benchmarks/reading.py --rows build/reader/rows.jsonl -n 60 --out benchmarks/results/reading.json

The rows are those of recipes/reader/data.py: questions of test articles, and the passages Factform's retriever found.
Every peer answers from exactly these: once with the prompt its documentation shows, once asked for a few words copied
from the passages or "unanswerable". Factform reads them with its evidence model, as a plain question does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from harness.environments import PeerFailed, python_for, run_peer

from factform.facts.calibration import candidates
from factform.facts.evidence import SHIPPED, EvidenceModel
from factform.ids import sha256_file
from factform.measure.intervals import rate_interval
from factform.measure.metrics import exact_match, loose_match, token_f1
from factform.measure.report import environment
from factform.model.fetch import DEFAULT_EMBEDDER, fetch_model

BUILD = Path(__file__).resolve().parents[1] / "build" / "benchmarks"
PEERS = ("llamaindex", "haystack")
STYLES = ("default", "short")
TOKENS = 32
NO_ANSWER = re.compile(
    r"unanswerable|no (answer|information|mention)|not (provid|mention|specif|contain|includ|answer|stat|given|clear)"
    r"|(do|does|did) not (provide|mention|say|contain|specify)|cannot (be )?(answer|determin)",
    re.I,
)
"""What counts as a peer's refusal, generously."""


def asked(rows: Path, n: int, k: int) -> list[dict[str, Any]]:
    """The first `n` of the questions that the evidence model's report is over, each with its best `k` passages."""
    with rows.open(encoding="utf-8") as lines:
        test = [r for r in map(json.loads, lines) if r["split"] == "test" and r["set"].startswith("squad")]
    chosen = random.Random(0).sample(test, min(1000, len(test)))[:n]
    for row in chosen:
        row["given"] = [p for p in row["passages"] if p["rank"] is not None][:k]
    return chosen


def factform_answers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The best span of each question, "" where the evidence model refuses."""
    model = EvidenceModel.open(SHIPPED, fetch_model(DEFAULT_EMBEDDER).folder)
    found = []
    for row in rows:
        read = model.read(row["question"], [(p["header"], p["text"]) for p in row["given"]])
        texts = [p["text"] for p in row["given"]]
        best = candidates(read, texts, model.calibration.answers_weight)[0]
        refused = model.answerable(read) < model.calibration.refuse_below
        found.append("" if refused else texts[best.passage][best.start : best.end])
    return found


def scores(rows: Sequence[Mapping[str, Any]], replies: Sequence[str]) -> dict[str, Any]:
    """Rates with n and 95 % intervals. A refusal of an answerable question is a wrong answer."""
    answers = ["" if not r or NO_ANSWER.search(r) else r.strip() for r in replies]
    pairs = [(row, got) for row, got in zip(rows, answers, strict=True) if row["answerable"]]
    rates = {
        "exact_match": [exact_match(got, row["answers"]) if got else 0.0 for row, got in pairs],
        "token_f1": [token_f1(got, row["answers"]) if got else 0.0 for row, got in pairs],
        "answer_contained": [loose_match(got, row["answers"]) if got else 0.0 for row, got in pairs],
        "false_refusal": [float(not got) for _, got in pairs],
        "refusal": [float(not got) for row, got in zip(rows, answers, strict=True) if not row["answerable"]],
    }
    return {name: asdict(interval) for name, values in rates.items() if (interval := rate_interval(values))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="what recipes/reader/data.py wrote")
    parser.add_argument("-n", type=int, default=60, help="questions")
    parser.add_argument("-k", type=int, default=5, help="passages a question")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--build", type=Path, default=BUILD, help="folder of environments and results")
    parser.add_argument("--out", type=Path, help="a file for the report as JSON")
    args = parser.parse_args()
    rows = asked(args.rows, args.n, args.k)
    torch.set_num_threads(args.threads)
    report: dict[str, Any] = {"n": len(rows), "passages": args.k, "arms": {}}
    language = fetch_model("smollm2-135m").folder
    questions = [
        {"question": r["question"], "passages": [f"{p['header']}\n{p['text']}" for p in r["given"]]} for r in rows
    ]
    for peer in PEERS:
        for style in STYLES:
            job = {"model": str(language), "threads": args.threads, "tokens": TOKENS, "style": style,
                   "questions": questions}  # fmt: skip
            print(f"{peer}, {style} prompt", file=sys.stderr, flush=True)
            try:
                got = run_peer(python_for(peer, args.build.absolute()), f"read_{peer}", job, args.build / "reading")
                report["arms"][f"{peer}/{style}"] = {**scores(rows, got["replies"]), "versions": got["versions"]}
            except PeerFailed as error:
                report["arms"][f"{peer}/{style}"] = {"problem": str(error)}
    report["arms"]["factform"] = scores(rows, factform_answers(rows))
    report["evidence"] = sha256_file(SHIPPED / "evidence.safetensors")
    report["environment"] = {**environment(), "threads": args.threads}
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
