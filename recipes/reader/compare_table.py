"""The report and table of compare.py's results: means and ranges over seeds, intervals over questions.

Knows nothing of how a reader was made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluate import auc

from factform.measure.intervals import Interval, paired_difference, rate_interval

HEADS = {
    "token_f1": "token F1",
    "exact_match": "exact match",
    "quote_verbatim": "quote verbatim",
    "quote_supporting": "quote holds the answer",
    "source_right": "source right",
    "token_f1_released": "F1 with refusals",
    "refused_answerable": "answerable refused",
    "refused_unanswerable": "unanswerable refused",
}
AGAINST = "a"
"""The variant all others are compared with, question by question."""


def values(questions: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of every rate its values by question, only where it says something."""
    found: dict[str, dict[str, float]] = {}
    for name in (*HEADS, "exact_match_released", "given"):
        of = {q["id"]: q.get(name) for q in questions}
        if name == "given":
            of = {q["id"]: q["given"] for q in questions if q["answerable"]}
        if name.startswith("refused_"):
            of = {q["id"]: q["refused"] for q in questions if q["answerable"] == (name == "refused_answerable")}
        found[name] = {key: float(value) for key, value in of.items() if value is not None}
    return {name: of for name, of in found.items() if of}


def summary(questions: Sequence[dict[str, Any]]) -> str:
    """Means of one run, in one line."""
    return ", ".join(f"{name} {mean(list(of.values())):.3f} (n={len(of)})" for name, of in values(questions).items())


def mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def report_of(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All runs of one split with the same settings, and what each variant comes to."""
    names = list(dict.fromkeys(line["variant"] for line in lines))
    runs = {name: [line for line in lines if line["variant"] == name] for name in names}
    return {
        "split": lines[0]["split"],
        "questions": lines[0]["n"],
        "settings": lines[0]["settings"],
        "variants": {name: variant_of(runs[name], runs.get(AGAINST, [])) for name in names},
        "environment": lines[-1]["environment"],
    }


def variant_of(runs: Sequence[dict[str, Any]], against: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One variant over its seeds. `[low, high]` is the range of the seeds' means; with one seed the 95 % interval over
    questions. `difference` is over questions, each one's mean over seeds, against the variant AGAINST."""
    by_seed = [values(run["questions"]) for run in runs]
    rates = {}
    for name in by_seed[0]:
        means = [mean(list(of[name].values())) for of in by_seed if of.get(name)]
        if len(means) == 1:
            interval = rate_interval(list(by_seed[0][name].values()))
            assert interval is not None
            rates[name] = asdict(interval)
        else:
            n = min(len(of[name]) for of in by_seed if of.get(name))
            rates[name] = asdict(Interval(mean(means), min(means), max(means), n))
    found: dict[str, Any] = {"seeds": [run["seed"] for run in runs], "rates": rates, **cost_of(runs)}
    found["auc"] = [round(auc_of(run["questions"]), 3) for run in runs]
    if against and runs[0]["variant"] != AGAINST and "training" in runs[0]:
        mine, theirs = by_question(runs), by_question(against)
        shared = [key for key in mine if key in theirs]
        difference = paired_difference([mine[k] for k in shared], [theirs[k] for k in shared])
        found["difference"] = asdict(difference) if difference else None
    return found


def auc_of(questions: Sequence[dict[str, Any]]) -> float:
    """How well the doubt tells the unanswerable questions from the others: area under the ROC curve."""
    return auc([q["doubt"] for q in questions], [not q["answerable"] for q in questions])


def by_question(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Token F1 of each question, its mean over seeds."""
    of_runs = [values(run["questions"])["token_f1"] for run in runs]
    return {key: mean([of[key] for of in of_runs]) for key in of_runs[0]}


def cost_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What training read and what an answer costs, means over seeds."""
    questions = [q for run in runs for q in run["questions"]]
    first = sorted(q["first_token_ms"] for q in questions)
    found: dict[str, Any] = {"first_token_ms": first[len(first) // 2]}
    if "training" in runs[0]:
        training = [run["training"] for run in runs]
        found |= {k: mean([t[k] for t in training]) for k in ("steps", "questions_seen", "seconds", "loss", "token_ms")}
        found["written_tokens"] = mean([q["written_tokens"] for q in questions if q["written_tokens"]])
        found["answer_ms"] = found["first_token_ms"] + found["written_tokens"] * found["token_ms"]
    return found


def table(file: Path, split: str, report: Path | None) -> None:
    """Print the results of `split` in `file` as Markdown, a table for each of the settings; write the last as JSON."""
    lines = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
    kinds: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["split"] == split:
            kinds.setdefault(json.dumps([line["n"], line["settings"]]), []).append(line)
    for kind, of in kinds.items():
        made = report_of(of)
        print(f"\n{split}: {kind}\n\n{markdown(made)}")
        if report:
            report.write_text(json.dumps(made, indent=2) + "\n", "utf-8")


def markdown(report: dict[str, Any]) -> str:
    heads = ["", "seeds", "questions seen", "token F1", f"F1 less that of {AGAINST}", *list(HEADS.values())[1:]]
    heads += ["AUC", "ms to first token", "ms an answer"]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name, of in report["variants"].items():
        seen = f"{of['questions_seen']:.0f}" if "questions_seen" in of else "–"
        whole = f"{of['answer_ms']:.0f}" if "answer_ms" in of else "–"
        rates = [cell(of["rates"].get(key)) for key in HEADS]
        more = cell(of.get("difference"))
        sure = short(mean(of["auc"]))
        rows.append(
            [name, str(len(of["seeds"])), seen, rates[0], more, *rates[1:], sure, f"{of['first_token_ms']:.0f}", whole]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cell(rate: dict[str, float] | None) -> str:
    return "–" if rate is None else f"{short(rate['value'])} [{short(rate['low'])}, {short(rate['high'])}]"


def short(value: float) -> str:
    """A share with two decimals, without its zero: .45, -.03, 1.00."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"
