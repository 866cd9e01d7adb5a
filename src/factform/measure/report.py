"""Show and save what was measured: tables for people, JSON for programs, with how it came about.

Knows nothing of how it was measured; prints to the console it is given.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from factform.errors import FactformError
from factform.measure.evaluate import AnswersReport, ArmReport
from factform.measure.intervals import Interval, Quantiles
from factform.measure.retrieval import RetrievalReport

PACKAGES = ("factform", "lancedb", "llguidance", "numpy", "pyarrow", "scipy", "tokenizers", "torch")

RATES = (
    ("valid", "in contract, no mask"),
    ("valid_masked", "in contract, released"),
    ("field_accuracy", "fields right"),
    ("exact_match", "exact match"),
    ("token_f1", "token F1"),
    ("source_right", "source right"),
    ("quote_precision", "quotes verbatim and supporting"),
    ("quote_verbatim", "quotes verbatim"),
    ("grounded", "answers fully grounded"),
    ("refusal", "unanswerable refused"),
    ("false_refusal", "answerable refused"),
)
"""Rows of the answers table: metric, and its name for people."""

Cell = Interval | Quantiles | None


def answers_table(report: AnswersReport) -> Table:
    """Metrics down, arms across; each cell is the value with its 95 % interval and n where n is not all cases.

    Rows in which no arm has a value are left out.
    """
    table = Table(title=f"{report.n} cases; 95 % intervals in brackets", title_justify="left")
    table.add_column("")
    for arm in report.arms:
        table.add_column(arm, justify="right")
    arms = list(report.arms.values())
    for metric, label in RATES:
        _add(table, label, [_percent(getattr(arm, metric), report.n) for arm in arms])
    _add(table, "prompt tokens", [_number(arm.prompt_tokens) for arm in arms])
    _add(table, "tokens written", [_number(arm.completion_tokens) for arm in arms])
    _add(table, "ms, median", [_number(arm.ms) for arm in arms])
    _add(table, "ms, 95th percentile", [f"{arm.ms.p95:,.0f}" if arm.ms else "" for arm in arms])
    _add(table, "errors", [str(arm.errors) if _any_errors(arms) else "" for arm in arms])
    return table


def retrieval_table(report: RetrievalReport) -> Table:
    """One row a metric."""
    table = Table(title=f"{report.n} queries; 95 % intervals in brackets", title_justify="left")
    table.add_column("")
    table.add_column("all", justify="right")
    for name, interval in report.metrics.items():
        table.add_row(name, f"{interval.value:.4f} [{interval.low:.3f}, {interval.high:.3f}]")
    table.add_row("ms, median", _number(report.ms))
    table.add_row("ms, 95th percentile", f"{report.ms.p95:,.1f}")
    return table


def print_answers(console: Console, report: AnswersReport) -> None:
    """The arms beside one another."""
    console.print(answers_table(report))


def print_retrieval(console: Console, report: RetrievalReport) -> None:
    """The ranking scores."""
    console.print(retrieval_table(report))


def write_report(path: Path | str, body: Mapping[str, Any]) -> None:
    """Write `body` as readable JSON with an added `environment`, whole or not at all."""
    path = Path(path)
    text = json.dumps({**body, "environment": environment()}, indent=2, ensure_ascii=False, allow_nan=False)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # the folder may be the very thing that is not there
            part.unlink()
        raise FactformError(f"the report {path} cannot be written: {error.strerror or error}") from error


def environment() -> dict[str, Any]:
    """What a number depends on besides the code under test: time, versions, commit, machine. No paths, no host name."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _add(table: Table, label: str, cells: list[str]) -> None:
    if any(cells):
        table.add_row(label, *(cell or "–" for cell in cells))


def _any_errors(arms: list[ArmReport]) -> bool:
    return any(arm.errors for arm in arms)


def _percent(cell: Cell, cases: int) -> str:
    if cell is None:
        return ""
    count = "" if cell.n == cases else f" n={cell.n}"
    return f"{cell.value:.1%} [{cell.low:.0%}, {cell.high:.0%}]{count}".replace("%", " %")


def _number(cell: Cell) -> str:
    return "" if cell is None else f"{cell.value:,.0f} [{cell.low:,.0f}, {cell.high:,.0f}]"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit this package runs from, with "+changes" if files differ; None where it is not under git.

    A virtual environment inside some other repository is not that repository's commit: this file must be tracked.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = _git(here.parent, "rev-parse", "HEAD")
    changes = _git(here.parents[1], "status", "--porcelain", "--untracked-files=no", ".")
    return f"{commit}+changes" if commit and changes else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
