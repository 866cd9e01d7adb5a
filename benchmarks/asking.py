"""Questions on articles the reader never saw, asked through the whole product, question in to verified record out.

    python benchmarks/asking.py --data DATA --split test -n 1000 --out benchmarks/results/asking.json

DATA holds the public sets (recipes/reader/README.md). Every document of every set is added to one project with default
settings; then each question is asked with `Project.ask`, as a user would. Refusals by the evidence model's limit are
switched off while asking and counted afterwards from the probabilities in the records, so that one run gives both: how
well it is read, and what is refused at which limit. Answers are kept as they come: a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from factform.facts.evidence import EvidenceModel
from factform.measure.intervals import rate_interval
from factform.measure.metrics import exact_match, loose_match, token_f1
from factform.measure.report import environment
from factform.project import Project

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "reader"))

from data import Question, clapnq, pubmedqa, split_of, squad, tatqa  # noqa: E402
from evaluate import auc, confidence, refused_at  # noqa: E402

FALSE_REFUSALS = (0.02, 0.05, 0.1, 0.2)


def project_of(folder: Path, data: Path) -> tuple[Project, list[Question], dict[tuple[str, str], str]]:
    """A project with all documents, made where it is not there yet; the questions, and the split of their articles."""
    parts = [squad(data, "squad_v1"), squad(data, "squad_v2"), tatqa(data), clapnq(data)]
    questions = [q for _, found in parts for q in found]
    if not (folder / "factform.toml").exists():
        Project.init(folder).close()
        with (folder / "factform.toml").open("a", encoding="utf-8") as settings:
            settings.write("\n[answer]\nrefuse_below = 0.0\nkeep_prompt = false\n")
    project = Project.open(folder)
    sources = [s for found, _ in parts for s in found] + pubmedqa(data)
    failed = [r for r in project.facts.add(sources, progress=_progress) if r.status == "failed"]
    print(f"\n{len(sources)} documents, {len(failed)} failed", file=sys.stderr)
    return project, questions, split_of(questions)


def _progress(done: int, total: int | None, _: str) -> None:
    if done % 100 == 0 or done == total:
        print(f"\r{done}/{total} documents", end="", file=sys.stderr, flush=True)


def ask_all(project: Project, questions: Sequence[Question], kept: Path) -> list[dict[str, Any]]:
    """What became of each question, one JSON line each in `kept`; those that are there already are not asked again."""
    lines = kept.read_text("utf-8").splitlines() if kept.exists() else []
    told = {row["id"]: row for row in map(json.loads, lines)}
    started, new = time.monotonic(), 0
    with kept.open("a", encoding="utf-8") as out:
        for number, question in enumerate(questions, 1):
            if question.id in told:
                continue
            told[question.id] = row = ask(project, question)
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            new += 1
            if new % 25 == 0 or number == len(questions):
                left = (time.monotonic() - started) / new * (len(questions) - number)
                print(f"\r{number}/{len(questions)} questions, {left:.0f} s left", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [told[question.id] for question in questions]


def ask(project: Project, question: Question) -> dict[str, Any]:
    got = project.ask(question.question)
    record = project.audit.show(got.record)["generation"]
    words = str(got.answer["answer"]) if got.status == "answered" and got.answer else ""
    return {
        "id": question.id, "status": got.status, "answer": words, "confidence": got.confidence,
        "answerable": record.get("answerable"), "ms": got.ms["total"],
        "citations": [{"document": c.document, "quote": c.quote, "verified": c.verified} for c in got.citations],
    }  # fmt: skip


def score(questions: Sequence[Question], told: Sequence[Mapping[str, Any]], limit: float) -> dict[str, Any]:
    """Every measure with n and 95 % intervals; `limit` is the probability below which the default settings refuse."""
    pairs = list(zip(questions, told, strict=True))
    good = [(q, t, t["answerable"] >= limit) for q, t in pairs if q.answers]
    f1 = [token_f1(t["answer"], q.answers) for q, t, _ in good]
    cited = [(q, t, c) for q, t, kept in good if kept for c in t["citations"]]
    rates = {
        "exact_match": [exact_match(t["answer"], q.answers) for q, t, _ in good],
        "token_f1": f1,
        "exact_match_released": [exact_match(t["answer"], q.answers) * kept for q, t, kept in good],
        "token_f1_released": [f * kept for f, (_, _, kept) in zip(f1, good, strict=True)],
        "source_right": [float(c["document"] == q.document) for q, _, c in cited],
        "quotes_verbatim": [float(c["verified"]) for _, _, c in cited],
        "quotes_hold_the_answer_given": [float(t["answer"] in c["quote"]) for _, t, c in cited],
        "quotes_hold_a_right_answer": [loose_match(c["quote"], q.answers) for q, _, c in cited],
        "refusal": [float(t["answerable"] < limit) for q, t in pairs if not q.answerable],
        "false_refusal": [float(t["answerable"] < limit) for q, t in pairs if q.answerable],
    }
    probability, truth = [t["answerable"] for t in told], [q.answerable for q in questions]
    sure = [t["confidence"] or 0.0 for t in told]
    correct = [loose_match(t["answer"], q.answers) if t["answer"] else 0.0 for q, t in pairs]
    return {
        "n": len(questions),
        "answerable": sum(truth),
        "refuse_below": limit,
        **{name: asdict(interval) for name, values in rates.items() if (interval := rate_interval(values))},
        "auc": auc(probability, truth),
        "refusal_at_false_refusal": {str(f): refused_at(probability, truth, f) for f in FALSE_REFUSALS},
        "confidence": confidence(sure, correct),
        "ms_median": statistics.median(t["ms"] for t in told),
    }


def limit_of(evidence: EvidenceModel | None) -> float:
    """The card's limit, which default settings refuse below."""
    if evidence is None:
        sys.exit("the project reads no evidence: this benchmark is about what ships")
    return evidence.calibration.refuse_below


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public sets")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--sets", default="squad_v1,squad_v2")
    parser.add_argument("-n", type=int, default=1000, help="questions")
    parser.add_argument("--project", type=Path, default=ROOT / "build" / "asking")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="a file for the report as JSON")
    args = parser.parse_args()
    if not (args.data / "squad_v2").is_dir():
        sys.exit(f"{args.data} holds no squad_v2: name the folder with the public sets")
    project, questions, split = project_of(args.project, args.data)
    with project:
        torch.set_num_threads(args.threads)
        chosen = [q for q in questions if q.set in args.sets.split(",") and split[q.set, q.article] == args.split]
        chosen = random.Random(0).sample(chosen, min(args.n, len(chosen)))
        evidence = project.evidence
        limit = limit_of(evidence)
        kept = args.project / f"answers-{evidence.digest[:12] if evidence else ''}.jsonl"
        told = ask_all(project, chosen, kept)
        report = {
            "split": args.split,
            "sets": args.sets,
            "evidence": evidence.digest if evidence else None,
            **score(chosen, told, limit),
            "environment": {**environment(), "threads": args.threads},
        }
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if args.out:
        args.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
