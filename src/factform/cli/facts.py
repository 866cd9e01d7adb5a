"""Verbs about documents and the index.

Knows nothing of how documents are stored or found.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from factform import records
from factform.cli import show
from factform.cli.explain import show_explained
from factform.cli.options import (
    HERE,
    AsOfOption,
    JsonOption,
    LabelOption,
    ProjectOption,
    WhereOption,
    WhoOption,
)
from factform.cli.run import FAILED, emit, opened
from factform.records import Hit, Receipt, SearchResult


def init(project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Make a folder a project: factform.toml and behaviors/.

    Example: factform init --project handbook
    """
    from factform.project import Project

    with Project.init(project) as made:
        folder = str(made.folder)
    value = {"project": folder, "created": ["factform.toml", "behaviors"]}
    emit(value, as_json, lambda console: show.made_project(console, folder))


def remove(
    documents: Annotated[list[str], typer.Argument(metavar="DOCUMENT…", help="Document ids.", show_default=False)],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Take documents out: no search finds them any more.

    Example: factform remove policies/leave.docx
    """
    started = time.perf_counter()
    with opened(project, as_json) as p:
        receipts = p.remove(documents)
    seconds = time.perf_counter() - started
    emit(receipts, as_json, lambda console: show.receipts(console, receipts, seconds))
    return _code(receipts)


def documents(project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """List the documents a search can find.

    Example: factform documents --json
    """
    with opened(project, as_json) as p:
        found = p.facts.documents()
    emit(found, as_json, lambda console: show.documents(console, found))


def search(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to look for.", show_default=False)],
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, max=1000, help="How many passages.")] = 10,
    distinct: Annotated[bool, typer.Option("--distinct", help="Leave out copies of better passages.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Every candidate, its scores, and why or why not.")
    ] = False,
    principal: WhoOption = "",
    label: LabelOption = None,
    where: WhereOption = "",
    as_of: AsOfOption = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Find the best passages for a question, without a language model.

    Example: factform search "notice period" -k 5 --where "year >= 2025 and dept = 'tax'"
    """
    with opened(project, as_json) as p:
        result = p.search(
            question,
            k=k,
            distinct=distinct,
            principal=principal or None,
            labels=label or None,
            where=where,
            as_of=as_of or None,
        )
    value = search_json(result)
    if explain:
        value |= explained_json(result)
    emit(value, as_json, lambda console: (show_explained if explain else show.hits)(console, result))


def rebuild(
    background: Annotated[
        bool, typer.Option("--background", help="Search and add as before until it is done; go on with one begun.")
    ] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Give up one that was begun and is not finished.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Make the index anew from the stored documents; searches use the old one until it is complete.

    Needed after a change of facts.chunk_tokens or model.embedder. With --background other processes go on adding, and
    searching with the embedder of before; without, nothing can be added meanwhile. The exit code is 1 if a document
    failed.

    Example: factform index rebuild --background
    """
    if drop and background:
        raise typer.BadParameter("what is given up is not gone on with: say one of the two", param_hint="--drop")
    with opened(project, as_json) as p:
        if drop:
            dropped = p.give_up_rebuild()
            said = "what was made is deleted" if dropped else "there was nothing to give up"
            emit({"dropped": dropped}, as_json, lambda console: console.print(said))
            return 0
        report = p.rebuild_index(background=background)
    emit(report, as_json, lambda console: show.rebuilt(console, report))
    return FAILED if report["failed"] else 0


def status(project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Say what the index and the store hold.

    Example: factform index status
    """
    with opened(project, as_json) as p:
        found = p.facts.status()
    emit(found, as_json, lambda console: show.mapping(console, found))


def search_json(result: SearchResult) -> dict[str, object]:
    """Hits with their chunk's fields beside their own."""
    hits = [_hit(hit) for hit in result.hits]
    return {"hits": hits, "ms": records.as_json(result.ms), "notes": list(result.notes), "point": result.point}


def explained_json(result: SearchResult) -> dict[str, object]:
    """What became of the other candidates and how all were scored."""
    dropped = [{name: value for name, value in _hit(hit).items() if name != "text"} for hit in result.dropped]
    return {"dropped": dropped, "ranking": records.as_json(result.ranking), "notes": list(result.notes)}


def _hit(hit: Hit) -> dict[str, object]:
    chunk = hit.chunk
    return {
        "rank": hit.rank,
        "document": chunk.document,
        "version": chunk.version,
        "chunk": chunk.id,
        "start": chunk.start,
        "end": chunk.end,
        "page": chunk.page,
        "title": chunk.title,
        "heading": list(chunk.heading),
        "text": chunk.text,
        "sha256": chunk.sha256,
        "score": hit.score,
        "scores": records.as_json(hit.scores),
        "ranks": records.as_json(hit.ranks),
        "kept": hit.kept,
        "reason": hit.reason,
    }


def _code(receipts: list[Receipt]) -> int:
    return FAILED if any(receipt.status == "failed" for receipt in receipts) else 0
