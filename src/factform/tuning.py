"""Tuning and gating composed: examples and the live retriever in, a registered adapter and a verdict out.

Knows nothing of settings files or the command line. Held-out examples choose the checkpoint and feed the gate; the
behavior's cases are never looked at here: they are for measuring what came out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from factform.errors import TrainingError
from factform.form import registry
from factform.form.checkpoint import Check
from factform.form.dataset import ChunksOf, Retrieve, RowProblem, TrainingRow, build_rows
from factform.form.gate import Scores, Verdict, decide
from factform.form.guard import Problem, lint_rows, split_rows
from factform.form.refusal import RefusalLimit, fit_refusal
from factform.form.split import HELD_OUT, Split, held_out
from factform.form.train import Progress, TrainResult, TrainSettings, encode_rows, train
from factform.ids import sha256_json
from factform.measure.evaluate import AnswersReport
from factform.measure.metrics import field_scores
from factform.model.grammar import Constraint
from factform.model.lora import Adapter, save_adapter
from factform.model.prompt import render
from factform.model.reader import Reader
from factform.model.schema import validate_answer
from factform.records import AdapterInfo, Behavior, Passage

Report = Callable[[str, int, int, str], None]
"""Progress for people: stage, done, of how many, a note."""

Propose = Callable[[str, Sequence[Passage]], Sequence[Passage]]
"""A question's passages with what the evidence proposes to quote of them."""


@dataclass(frozen=True)
class TuneReport:
    """What a tuning run did. `refused` are rows the guard or the builder kept out, each with its reason."""

    adapter: AdapterInfo
    rows: int
    rows_by_origin: Mapping[str, int]
    refused: tuple[Mapping[str, str], ...]
    steps: int
    best_step: int
    first_loss: float
    last_loss: float
    checks: tuple[Check, ...]
    begun: int
    refusal: RefusalLimit
    seconds: Mapping[str, float]
    tokens_per_s: float


def tune(
    behavior: Behavior,
    split: Split,
    reader: Reader,
    retrieve: Retrieve,
    chunks_of: ChunksOf,
    settings: TrainSettings,
    *,
    twins: float,
    unanswerable: float,
    work: Path,
    adapters: Path,
    lineage: Mapping[str, Any],
    answerable: Callable[[str], float | None] | None = None,
    adapter_refuses: bool = False,
    propose: Propose | None = None,
    report: Report | None = None,
) -> TuneReport:
    """Build the rows, train, register. `work` keeps the checkpoint: the same call again goes on where it stopped.

    With `answerable`, the probability that a question's passages hold its answer, the examples trained on also set the
    limit below which the behavior refuses. Where they set one the checks are on answerable rows alone and the adapter
    may not refuse, as when it is asked later; unless it `adapter_refuses` then as well. `propose` gives the checks what
    may be quoted, as answering does. Raises TrainingError where nothing is left to train on or the run must not go on.
    """
    started = time.perf_counter()
    say = report or (lambda *_: None)
    rows, problems = build_rows(
        behavior,
        split.train,
        retrieve,
        chunks_of,
        seed=settings.seed,
        twins=twins,
        unanswerable=unanswerable,
        progress=lambda done, total: say("rows", done, total, ""),
    )
    found = lint_rows(rows, behavior.contract, behavior.cases, behavior.instructions)
    found += too_long(rows, reader, behavior.max_tokens)
    kept, refused = split_rows(rows, found)
    reasons = _reasons(refused, problems)
    if not kept:
        raise TrainingError(f"none of {len(rows)} rows may be trained on; the first reason: {reasons[:1]}")
    encoded = encode_rows(kept, reader, behavior.name)
    limit = fit_refusal(
        split.train,
        answerable or (lambda _: None),
        seed=settings.seed,
        progress=lambda n, of: say("refusal", n, of, ""),
    )
    checks, lost = build_rows(behavior, split.check, retrieve, chunks_of, seed=settings.seed, twins=0, unanswerable=0)
    reasons += _reasons([], lost)
    if propose:
        checks = [replace(row, passages=tuple(propose(row.question, row.passages))) for row in checks]
    may_refuse = adapter_refuses or not limit.below
    built = time.perf_counter()
    result = train(
        encoded,
        reader,
        settings,
        folder=work / sha256_json([behavior.digest, settings.seed])[:16],
        checker=make_checker(behavior, checks, reader, may_refuse=may_refuse),
        checked=_digest(checks, may_refuse),
        progress=lambda p: say("train", p.step, p.steps, describe(p)),
    )
    trained = time.perf_counter()
    lineage = {**lineage, "refusal": asdict(limit), HELD_OUT: held_out(split)}
    info = register(behavior, result, reader, settings, kept, adapters, lineage)
    return TuneReport(
        adapter=info,
        rows=len(kept),
        rows_by_origin={o: sum(r.origin == o for r in kept) for o in ("example", "twin", "withheld", "closed")},
        refused=tuple(reasons),
        steps=result.steps,
        best_step=result.best_step,
        first_loss=result.losses[0],
        last_loss=sum(result.losses[-10:]) / len(result.losses[-10:]),
        checks=result.checks,
        begun=result.begun,
        refusal=limit,
        seconds={"rows": built - started, "train": trained - built, "total": time.perf_counter() - started},
        tokens_per_s=result.trained_tokens / result.seconds,
    )


def too_long(rows: Sequence[TrainingRow], reader: Reader, most: int) -> list[Problem]:
    """Rows whose answer could never be written to its end."""
    sizes = [len(reader.encode(row.output)) + 1 for row in rows]
    return [
        Problem(
            i, row.id, "contract", f"the target has {size} tokens and max_tokens is {most}: raise it, or shorten it"
        )
        for i, (row, size) in enumerate(zip(rows, sizes, strict=True))
        if size > most
    ]


def make_checker(
    behavior: Behavior, rows: Sequence[TrainingRow], reader: Reader, *, may_refuse: bool = True
) -> Callable[[Adapter, int], Check]:
    """A check on held-out rows in the serving mode: `valid` is the share in which the mask never had to keep the
    contract's form (only, perhaps, a quote's words), `score` the mean share of right leaves, quote and source included.

    Without `may_refuse` only rows with an answer are asked, and have to be answered.
    """
    rows = [row for row in rows if may_refuse or row.answerable]

    def check(adapter: Adapter, step: int) -> Check:
        reader.set_adapter("in-training", adapter)
        valid, score = 0.0, 0.0
        for row in rows:
            written = reader.generate(
                render(row.question, row.passages, reader.chat, trigger=behavior.name),
                adapter="in-training",
                mode="reuse",
                constraint=Constraint(behavior.contract, row.passages, may_refuse),
                max_tokens=behavior.max_tokens,
            )
            value, problems = validate_answer(written.text, behavior.contract)
            valid += written.violations == 0 and not problems and written.stop == "end"
            score += _leaf_share(row, value)
        n = max(1, len(rows))
        return Check(step, valid / n, score / n, len(rows))

    return check


def _leaf_share(row: TrainingRow, value: Mapping[str, Any] | None) -> float:
    if value is None or row.output_object is None:
        return 0.0
    right = field_scores(row.output_object, value, ())
    return sum(right.values()) / max(1, len(right))


def register(
    behavior: Behavior,
    result: TrainResult,
    reader: Reader,
    settings: TrainSettings,
    rows: Sequence[TrainingRow],
    adapters: Path,
    lineage: Mapping[str, Any],
) -> AdapterInfo:
    """Put the trained adapter into the registry with how it was made."""
    with tempfile.TemporaryDirectory() as name:
        save_adapter(result.adapter, Path(name), {})
        new = registry.NewAdapter(
            behavior=behavior.name,
            behavior_digest=behavior.digest,
            base=reader.digest,
            lineage={
                **lineage,
                "settings": asdict(settings),
                "rows": len(rows),
                "data": _digest(rows),
            },
            metrics={
                "best_step": result.best_step,
                "steps": result.steps,
                "checks": [asdict(c) for c in result.checks],
            },
            times={"train_s": round(result.seconds, 1)},
        )
        return registry.add(adapters, Path(name), new)


def _digest(rows: Sequence[TrainingRow], *more: object) -> str:
    """Of what rows ask, over which passages, and what is to be written."""
    return sha256_json([[[r.id, r.question, [p.chunk.sha256 for p in r.passages], r.output] for r in rows], *more])


def judge(report: AnswersReport, *, candidate: str = "both", baseline: str = "facts", seed: int = 0) -> Verdict:
    """The gate's verdict from an evaluation of both arms on the same held-out examples."""
    return decide(_scores(report, candidate), _scores(report, baseline), seed=seed)


def _scores(report: AnswersReport, arm: str) -> Scores:
    rows = [row for row in report.rows if row.arm == arm]
    return Scores(
        cases=tuple(row.id for row in rows),
        valid=tuple(row.scores.valid for row in rows),
        field_accuracy=tuple(row.scores.field_accuracy for row in rows),
        grounded=tuple(row.scores.grounded if row.answerable else row.scores.refusal for row in rows),
    )


def describe(progress: Progress) -> str:
    """One line about a running training."""
    check = progress.check
    held_out = f" · held-out valid {check.valid:.0%}, right {check.score:.0%} (n={check.n})" if check else ""
    return f"loss {progress.loss:.3f} · {progress.tokens_per_s:.0f} tok/s{held_out}"


def _reasons(
    refused: Sequence[tuple[TrainingRow, Sequence[Problem]]], problems: Sequence[RowProblem]
) -> list[dict[str, str]]:
    return [
        *({"row": p.row, "kind": p.kind, "detail": p.detail} for _, found in refused for p in found),
        *({"row": p.id, "kind": "quote", "detail": p.detail} for p in problems),
    ]
