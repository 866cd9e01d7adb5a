"""Who should refuse: the adapter, the evidence below the limit that tuning fitted, or either?

    python benchmarks/refusing.py --project demo --out benchmarks/results/refusing.json

The project has a behavior with an adapter, as `make demo` leaves it. Asked are the examples its training did not see
and those cases that `make demo` does not report (all but the last `--leave`). Each is asked twice: may the adapter
refuse, does it; and what it answers where it may not. What each policy would have refused follows from that and from
the evidence's probability. Nothing is released and nothing recorded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from factform.answer import Ask, EvidenceUse, Parts, answer
from factform.audit.record import AnswerRecord
from factform.measure.intervals import paired_difference, rate_interval
from factform.measure.metrics import field_scores
from factform.measure.report import environment
from factform.project import Project
from factform.records import AdapterInfo, Behavior, Case

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "reader"))

from evaluate import auc  # noqa: E402


@dataclass(frozen=True)
class Asked:
    """One question: the evidence's probability of an answer, whether the adapter refused, the share of right fields
    where it had to answer (None for an unanswerable one)."""

    id: str
    answerable: bool
    probability: float
    refused: bool
    right: float | None


Policy = Callable[[Asked], bool]
"""Would this question have been refused?"""


def policies(limit: float) -> dict[str, Policy]:
    return {
        "nobody": lambda _: False,
        "the adapter": lambda q: q.refused,
        "the evidence": lambda q: q.probability < limit,
        "either": lambda q: q.refused or q.probability < limit,
    }


def ask(case: Case, behavior: Behavior, adapter: AdapterInfo, use: EvidenceUse, parts: Parts) -> Asked:
    """Ask with and without the adapter's refusal; the evidence refuses nothing yet."""
    asked = Ask(
        case.question, behavior, adapter, mode="reuse", passages=behavior.passages, max_tokens=behavior.max_tokens
    )
    found: list[float] = []

    def note(record: AnswerRecord) -> str:
        found.append(record.generation["answerable"])
        return ""

    noting = replace(parts, write=note)
    open_use = replace(use, refuse_below=0.0, min_confidence=0.0)
    may = answer(replace(asked, evidence=replace(open_use, alone=False)), noting)
    must = answer(replace(asked, evidence=replace(open_use, alone=True)), noting)
    right = None
    if case.expected is not None:
        contract = behavior.contract
        scores = field_scores(case.expected, must.answer, {*contract.quote_paths, *contract.source_paths})
        right = sum(scores.values()) / len(scores)
    return Asked(case.id, case.answerable, found[0], may.status != "answered", right)


def summary(asked: Sequence[Asked], policy: Policy) -> dict[str, Any]:
    """What a policy refuses of either kind, the share of right fields (refusals are 0), what it releases wrongly."""
    good, bad = [q for q in asked if q.answerable], [q for q in asked if not q.answerable]
    wrong = [float(not policy(q) and (q.right or 0.0) < 1) for q in asked]
    return {
        "unanswerable_refused": _rate([float(policy(q)) for q in bad]),
        "answerable_refused": _rate([float(policy(q)) for q in good]),
        "fields_right": _rate(fields(asked, policy)),
        "released_and_not_all_right": _rate(wrong),
    }


def fields(asked: Sequence[Asked], policy: Policy) -> list[float]:
    return [0.0 if policy(q) else q.right or 0.0 for q in asked if q.answerable]


def _rate(values: Sequence[float]) -> Any:
    found = rate_interval(values)
    return asdict(found) if found else None


def report_of(asked: Sequence[Asked], limit: float, adapter: AdapterInfo) -> dict[str, Any]:
    every = policies(limit)
    difference = paired_difference(fields(asked, every["the evidence"]), fields(asked, every["either"]))
    return {
        "n": len(asked),
        "adapter": adapter.name,
        "limit": limit,
        "evidence_auc": auc([1 - q.probability for q in asked], [not q.answerable for q in asked]),
        "policies": {name: summary(asked, policy) for name, policy in every.items()},
        "fields_right_evidence_less_either": asdict(difference) if difference else None,
        "questions": [asdict(q) for q in asked],
        "environment": environment(),
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The policies as a table."""
    heads = ("unanswerable refused", "answerable refused", "fields right", "released, not all right")
    lines = [f"| who refuses | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for name, found in report["policies"].items():
        cells = [f"{r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}] n={r['n']}" for r in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path("demo"))
    parser.add_argument("--behavior", default="desk")
    parser.add_argument("--leave", type=int, default=40, help="cases at the end that are not asked")
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    args = parser.parse_args()
    with Project.open(args.project) as project:
        behavior = project.behavior(args.behavior)
        adapter = project.adapters(args.behavior)[-1]
        use = project.evidence_use(behavior, adapter)
        if not use.refuse_below:
            parser.error(f"tuning fitted no limit for {adapter.name}: give the behavior more examples of both kinds")
        project._load_adapter(adapter)
        split = project.split(behavior)
        cases = (*behavior.cases[: -args.leave or None], *split.check, *split.gate)
        parts, asked = project.parts(), []
        for done, case in enumerate(cases, 1):
            asked.append(ask(case, behavior, adapter, use, parts))
            print(f"\r{done}/{len(cases)} questions", end="", file=sys.stderr, flush=True)
    report = report_of(asked, use.refuse_below, adapter)
    print(f"\n{report['adapter']}, limit {report['limit']:.3f}, AUC of the evidence {report['evidence_auc']:.3f}\n")
    print(markdown(report))
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
