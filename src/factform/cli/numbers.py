"""Verbs that measure.

Knows nothing of the metrics.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from factform.cli.options import HERE, BehaviorOption, JsonOption, ProjectOption
from factform.cli.run import emit, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from factform.measure.evaluate import AnswersReport
    from factform.measure.retrieval import RetrievalReport
    from factform.project import Project

RowsOption = Annotated[bool, typer.Option("--rows", help="Print every answer or query, too (with --json).")]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the report there, with rows.")]

WITH_FORM, WITHOUT_FORM = ("base", "facts", "form", "both"), ("base", "facts")


def answers(
    cases: Annotated[Path, typer.Option("--cases", metavar="FILE", help="Cases, one JSON object a line.")],
    behavior: BehaviorOption = "",
    arms: Annotated[
        str, typer.Option("--arms", metavar="LIST", help="Of base,facts,form,both (default: those there are).")
    ] = "",
    adapter: Annotated[
        str, typer.Option("--adapter", metavar="ADAPTER", help="Adapter of the arms with form.")
    ] = "promoted",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="Only the first N cases (0: all).")] = 0,
    no_free: Annotated[bool, typer.Option("--no-free", help="Skip validity without the mask: faster.")] = False,
    rows: RowsOption = False,
    out: OutOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Put cases to up to four arms and print rates with 95 % intervals.

    base: the prompted model alone. facts: with passages. form: the adapter alone. both: adapter and passages.

    Example: factform evaluate answers --cases cases.jsonl --behavior desk --arms facts,both
    """
    from factform.measure.report import print_answers

    with opened(project, as_json) as p:
        report = p.evaluate_answers(
            cases,
            behavior=behavior or None,
            adapter=adapter,
            arms=_arms(p, arms, behavior, adapter),
            limit=limit,
            check_free=not no_free,
        )
    _emit(report, lambda console: print_answers(console, report), rows=rows, out=out, as_json=as_json)


def retrieval(
    queries: Annotated[Path, typer.Option("--queries", metavar="FILE", help="BEIR queries, one JSON object a line.")],
    qrels: Annotated[Path, typer.Option("--qrels", metavar="FILE", help="Judgements: query, document, grade.")],
    k: Annotated[int, typer.Option("-k", metavar="N", min=10, max=1000, help="Depth of recall.")] = 100,
    rows: RowsOption = False,
    out: OutOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Measure the search on judged queries, as BEIR does.

    A hit whose document id is the query's own id is dropped.

    Example: factform evaluate retrieval --queries queries.jsonl --qrels test.tsv
    """
    from factform.measure.report import print_retrieval

    with opened(project, as_json) as p:
        report = p.evaluate_retrieval(queries, qrels, k=k)
    _emit(report, lambda console: print_retrieval(console, report), rows=rows, out=out, as_json=as_json)


def _emit(
    report: AnswersReport | RetrievalReport,
    show: Callable[[Console], None],
    *,
    rows: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    from factform.measure.report import write_report

    if out:
        write_report(out, report.as_json(rows=True))
    emit(report.as_json(rows=rows), as_json, show)


def _arms(project: Project, arms: str, behavior: str, adapter: str) -> tuple[str, ...]:
    """The arms asked for; else all four where there is an adapter to use, and those without form where not."""
    if arms:
        return tuple(dict.fromkeys(arm.strip() for arm in arms.split(",") if arm.strip()))
    named = adapter != "promoted"
    usable: Any = behavior and (named or any(info.promoted for info in project.adapters(behavior)))
    return WITH_FORM if usable else WITHOUT_FORM
