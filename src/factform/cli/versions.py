"""Verbs about versions of documents: history, diff, restore.

Knows nothing of how versions are kept.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from factform.cli import show
from factform.cli.options import HERE, JsonOption, ProjectOption
from factform.cli.run import FAILED, emit, opened
from factform.cli.show import _row, _table
from factform.records import as_json as plain_json

if TYPE_CHECKING:
    from rich.console import Console

    from factform.facts.versions import Difference

DocumentArgument = Annotated[str, typer.Argument(metavar="DOCUMENT", help="Id of a document.", show_default=False)]


def history(document: DocumentArgument, project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """List every version of a document, with the points between which a search found it.

    A point can be given to `--as-of`, a version or a point to `diff` and `restore`; of pruned ones only this is left.

    Example: factform history policies/leave.docx
    """
    with opened(project, as_json) as p:
        rows = [plain_json(row) for row in p.history(document)]
    emit(rows, as_json, lambda console: _history(console, rows))


def diff(
    document: DocumentArgument,
    old: Annotated[
        str | None, typer.Argument(metavar="[V1]", help="A version or point (default: the one before).")
    ] = None,
    new: Annotated[str | None, typer.Argument(metavar="[V2]", help="A version or point (default: the last).")] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show what changed in a document's text from one version to another.

    Example: factform diff policies/leave.docx 3f2a 91bc
    """
    with opened(project, as_json) as p:
        found = p.diff(document, old, new)
    emit(_diff_json(found), as_json, lambda console: _diff(console, found))


def restore(
    document: DocumentArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version or point.", show_default=False)],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Make an old version of a document the current one again; its history goes on.

    Access labels stay those in force now: an old version does not open a document again.

    Example: factform restore policies/leave.docx 3f2a
    """
    started = time.perf_counter()
    with opened(project, as_json) as p:
        receipts = [p.restore(document, version)]
    seconds = time.perf_counter() - started
    emit(receipts, as_json, lambda console: show.receipts(console, receipts, seconds))
    return FAILED if receipts[0].status == "failed" else 0


def _history(console: Console, rows: list[dict[str, Any]]) -> None:
    table = _table("version", "#from point", "#to", "status", "since", "until", "title", "#chunks", "access", "error")
    for row in rows:
        until = row["ended"] if row["ended"] is not None else "now" if row["status"] == "indexed" else ""
        status = row["status"] if row["pruned_at"] is None else f"{row['status']}, pruned {row['pruned_at'][:10]}"
        since, ended = (row["indexed_at"] or row["accepted_at"])[:19], (row["ended_at"] or "")[:19]
        begun = "" if row["began"] is None else row["began"]
        told = (row["title"] or "", row["chunks"], ", ".join(row["access"]), row["error"] or "")
        _row(table, row["version"], begun, until, status, since, ended, *told)
    console.print(table)
    console.print(f"{len(rows)} versions; times are UTC")


def _diff_json(found: Difference) -> dict[str, Any]:
    told = [{"field": name, "old": old, "new": new} for name, old, new in found.told]
    return {**plain_json(found), "told": plain_json(told)}


def _diff(console: Console, found: Difference) -> None:
    """As `diff -u` prints it."""
    name = show.plain(found.document)
    console.print(f"--- {name} {found.old}\n+++ {name} {found.new}", soft_wrap=True)
    for field, old, new in found.told:
        console.print(f"{field}: {show.plain(old)} -> {show.plain(new)}", soft_wrap=True)
    for hunk in found.hunks:
        places = f"-{hunk.old_start},{hunk.old_lines} +{hunk.new_start},{hunk.new_lines}"
        console.print(f"@@ {places} @@", soft_wrap=True)
        for line in hunk.lines:
            style = {"-": "red", "+": "green"}.get(line[0])
            console.print(show.plain(line), style=style, soft_wrap=True)
    if not found.hunks:
        console.print("the texts are the same")
