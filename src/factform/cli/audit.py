"""Verbs about the record of answers.

Knows nothing of how records are kept or chained.
"""

from __future__ import annotations

from typing import Annotated

import typer

from factform.cli import show as render
from factform.cli.options import HERE, JsonOption, ProjectOption
from factform.cli.run import FAILED, emit, opened


def list_(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many records.")] = 50,
    before: Annotated[str, typer.Option("--before", metavar="RECORD", help="Only records older than this one.")] = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """List records, newest first.

    Example: factform audit list --limit 10
    """
    with opened(project, as_json) as p:
        found = p.audit.list(limit, before or None)
    emit(found, as_json, lambda console: render.records(console, found))


def show(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="Id of a record, or its beginning.")],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show one record: question, every candidate with scores, prompt, output, citations, versions.

    Example: factform audit show 01KABC
    """
    with opened(project, as_json) as p:
        found = p.audit.show(record)
    emit(found, as_json, lambda console: render.record(console, found))


def verify(
    head: Annotated[str, typer.Option("--head", metavar="N:LINK", help="A head printed earlier, kept elsewhere.")] = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Check every record and the chain of hashes. The exit code is 1 if anything was changed.

    Keep the head it prints somewhere else: with --head, the end of the chain is proved as well.

    Example: factform audit verify
    """
    known = _head(head) if head else None
    with opened(project, as_json) as p:
        problems = p.audit.verify(known)
        count, link = p.audit.head() if not problems else (None, None)
    found = {"records": count, "head": f"{count}:{link}" if link else None, "problems": problems}
    emit(found, as_json, lambda console: render.verified(console, found))
    return FAILED if problems else 0


def _head(text: str) -> tuple[int, str]:
    number, _, link = text.partition(":")
    if not number.isdecimal() or len(link) != 64:
        raise typer.BadParameter(f"{text!r} is no head: it looks like 12:<64 hex digits>", param_hint="--head")
    return int(number), link
