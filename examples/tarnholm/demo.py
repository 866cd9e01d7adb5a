"""The whole of Factform on the Tarnholm papers: facts in, form taught, a cited answer out, everything timed.

Run it with `make demo`. It works in its own folder (default: demo/) and uses only the public `Project`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from factform.care import machine
from factform.errors import FactformError
from factform.measure.evaluate import AnswersReport
from factform.measure.report import print_answers, write_report
from factform.project import Project
from factform.records import Answer, as_json

HERE = Path(__file__).resolve().parent
BEHAVIOR = "desk"
TABLE_CASES = 40
QUESTIONS = 3

console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)


class Steps:
    """Runs the steps one after the other, with a heading, a progress bar and the seconds each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._progress: Progress | None = None
        self._tasks: dict[str, int] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step: everything reported inside is shown as bars, one a stage."""
        console.print(f"\n[bold]{len(self.seconds) + 1}. {name}[/bold]")
        started = time.perf_counter()
        columns = (
            TextColumn("   {task.description:<16}"), BarColumn(24),
            TextColumn("{task.completed:>5.0f}/{task.total:.0f}"),
            TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        self._tasks = {}
        with Progress(*columns, console=console, refresh_per_second=2) as progress:
            self._progress = progress
            try:
                yield
            finally:
                self._progress = None
                self.seconds[name] = time.perf_counter() - started
        console.print(f"   [dim]{self.seconds[name]:.1f} s[/dim]")

    def report(self, stage: str, done: int, total: int, note: str) -> None:
        """Progress as `Project` reports it."""
        if self._progress is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total or None, note="")
        shown = note if stage == "train" else ""
        self._progress.update(self._tasks[stage], completed=done, total=total or None, note=shown)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=Path("demo"), help="folder the demo works in")
    parser.add_argument("--cases", type=int, default=TABLE_CASES, help="held-out cases in the final table")
    parser.add_argument("--epochs", type=float, default=0.0, help="passes over the training rows (0: as in settings)")
    options = parser.parse_args(arguments)
    try:
        run(options.project, options.cases, options.epochs)
    except FactformError as error:
        console.print(f"[bold red]The demo stopped:[/bold red] {error}")
        return 1
    return 0


def run(folder: Path, cases: int, epochs: float) -> None:
    """The seven steps."""
    steps = Steps()
    prepare(folder)
    with Project.open(folder, report=steps.report) as project:
        with steps.step("Models"):
            show_models(project)
        with steps.step("Documents in"):
            add_documents(project, folder)
        questions = [c for c in project.behavior(BEHAVIOR).cases if c.answerable][:QUESTIONS]
        with steps.step("Questions before tuning: the bare base, then base + facts"):
            for case in questions:
                show_answer("base", project.ask(case.question, behavior=BEHAVIOR, adapter=None, facts=False))
                show_answer("base + facts", project.ask(case.question, behavior=BEHAVIOR, adapter=None))
        with steps.step("Tune the behavior"):
            tuned = project.tune(BEHAVIOR, epochs=epochs)
        console.print(
            f"   {tuned.rows} rows {dict(tuned.rows_by_origin)}, {len(tuned.refused)} refused by the guard; loss "
            f"{tuned.first_loss:.2f} -> {tuned.last_loss:.2f}; step {tuned.best_step} of {tuned.steps} was best; "
            f"{tuned.tokens_per_s:.0f} tokens/s"
        )
        with steps.step("Gate and promote"):
            gate_and_promote(project)
        with steps.step("The same questions, tuned, over the documents"):
            for case in questions:
                show_answer("facts + form", project.ask(case.question, behavior=BEHAVIOR), cite=True)
        with steps.step("A document changes: no retraining"):
            change = change_document(project, folder)
        with steps.step(f"The 2x2 on {cases} held-out cases"):
            report = project.evaluate_answers(project.behavior(BEHAVIOR).cases[-cases:], behavior=BEHAVIOR)
    finish(folder, steps, tuned, change, report)


def prepare(folder: Path) -> None:
    """The demo's project folder, its documents as they are before step 6. What was learnt before is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("documents", "behaviors"):
        shutil.copytree(HERE / part, folder / part, dirs_exist_ok=True)
    shutil.copy(HERE / "factform.toml", folder / "factform.toml")


def show_models(project: Project) -> None:
    """Fetch (first run) and open both models."""
    facts = machine()
    reader = project.reader
    project.facts.status()
    console.print(
        f"   language model {reader.model} ({reader.digest[:12]}), embedder {project.settings.model.embedder}; "
        f"{facts['threads']} threads, {facts['dtype']}"
    )


def add_documents(project: Project, folder: Path) -> None:
    started = time.perf_counter()
    receipts = project.add([folder / "documents"])
    seconds = time.perf_counter() - started
    failed = [r for r in receipts if r.status == "failed"]
    for receipt in [*receipts[:3], *failed]:
        console.print(f"   {receipt.status:<9} {receipt.document} {receipt.chunks} chunks {receipt.error or ''}")
    chunks = sum(r.chunks for r in receipts)
    console.print(f"   … {len(receipts)} documents, {chunks} chunks, {len(failed)} failed, {seconds:.1f} s")
    if failed:
        raise FactformError(f"{len(failed)} documents of the sample could not be read")


def show_answer(arm: str, got: Answer, *, cite: bool = False) -> None:
    if arm in ("base", "facts + form"):
        console.print(f"   [cyan]{got.question}[/cyan]")
    text = json.dumps(got.answer, ensure_ascii=False) if got.answer else f"{got.status}: {got.reason}"
    console.print(f"     [bold]{arm}[/bold]: {text}", soft_wrap=True)
    console.print(f"       [dim]{got.prompt_tokens} prompt tokens, {got.ms['total']:.0f} ms[/dim]")
    if cite:
        for c in got.citations:
            page = f", page {c.page}" if c.page else ""
            console.print(f"       [green]“{c.quote}”[/green] {c.document}{page} [{c.start}:{c.end}]", soft_wrap=True)


def gate_and_promote(project: Project) -> None:
    """The gate decides on held-out examples; a rejected adapter stops the demo, as it would stop a release."""
    info, verdict, _ = project.gate(BEHAVIOR)
    for reason in verdict.reasons:
        console.print(f"   {reason}", soft_wrap=True)
    if not verdict.passed:
        raise FactformError(f"the gate did not pass {info.name}: {verdict.decision}")
    console.print(f"   promoted {project.promote(BEHAVIOR, info.digest).name}")


def change_document(project: Project, folder: Path) -> dict[str, object]:
    """Save a new version of one document, add it, ask at once."""
    update = json.loads((HERE / "documents_update" / "update.json").read_text("utf-8"))
    before = project.ask(update["question"], behavior=BEHAVIOR)
    show_answer("facts + form", before, cite=True)
    path = folder / "documents" / update["document"]
    shutil.copy(HERE / "documents_update" / update["document"], path)
    saved = time.perf_counter()
    receipt = project.add([path])[0]
    searchable = time.perf_counter()
    after = project.ask(update["question"], behavior=BEHAVIOR)
    answered = time.perf_counter()
    show_answer("facts + form", after, cite=True)
    first, second = (compared(got, update[when]["expected"]) for got, when in ((before, "before"), (after, "after")))
    result = {
        "status": receipt.status,
        "save_to_searchable_ms": (searchable - saved) * 1e3,
        "save_to_answered_ms": (answered - saved) * 1e3,
        "before": first,
        "after": second,
        "before_right": first["right"],
        "after_right": second["right"],
    }
    console.print(
        f"   {receipt.document} {receipt.status}: searchable {result['save_to_searchable_ms']:.0f} ms and answered "
        f"{result['save_to_answered_ms']:.0f} ms after saving"
    )
    return result


def compared(got: Answer, expected: dict[str, dict[str, str]]) -> dict[str, object]:
    """What was answered beside what stands in the document at that moment; also printed."""
    figure = (got.answer or {}).get("figure")
    right = figure == expected["figure"]
    console.print(f"     expected {expected['figure']}: {'right' if right else f'got {figure}'}", soft_wrap=True)
    return {"expected": expected["figure"], "got": figure, "right": right}


def finish(folder: Path, steps: Steps, tuned: object, change: dict[str, object], report: AnswersReport) -> None:
    """The two tables, and the same as JSON."""
    console.print("\n[bold]Facts x form, on cases no part of the system has seen[/bold]")
    print_answers(console, report)
    table = Table(title="Seconds per step", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for name, seconds in steps.seconds.items():
        table.add_row(name, f"{seconds:.1f}")
    table.add_row("[bold]all[/bold]", f"[bold]{sum(steps.seconds.values()):.1f}[/bold]")
    console.print(table)
    body = {
        **report.as_json(rows=True),
        "seconds": steps.seconds,
        "tuning": as_json(tuned),
        "update": change,
        "machine": machine(),
    }
    write_report(folder / "report.json", body)
    console.print(f"written: {folder / 'report.json'}")


if __name__ == "__main__":
    sys.exit(main())
