"""Verbs that take documents in: once, as a folder is, or as it changes.

Knows nothing of how files are read, pages fetched or documents stored.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from factform import records
from factform.cli import show
from factform.cli.options import HERE, JsonOption, ProjectOption
from factform.cli.run import FAILED, console, emit, opened

AccessOption = Annotated[
    list[str] | None,
    typer.Option("--access", metavar="LABEL", help='Who may see it; repeatable, "" for everybody.', show_default=False),
]
MetaOption = Annotated[
    list[str] | None,
    typer.Option("--meta", metavar="KEY=VALUE", help="Metadata; a JSON number, true, false or null is taken as such."),
]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The folder.", show_default=False)]


def add(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH…", help='Files, folders, "globs/**", URLs, - for stdin.')
    ] = None,
    jsonl: Annotated[
        str, typer.Option("--jsonl", metavar="FILE", help='Rows {"id", "title", "text", "metadata"}; - for stdin.')
    ] = "",
    name: Annotated[str, typer.Option("--name", metavar="FILE", help="File name of standard input.")] = "",
    document: Annotated[str, typer.Option("--id", metavar="DOCUMENT", help="Id of standard input.")] = "",
    access: AccessOption = None,
    meta: MetaOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Take in documents; a receipt for each.

    One that cannot be read fails alone; the exit code is then 1. Adding again skips what is unchanged.

    Example: factform add documents "notes/**/*.md" --access staff --meta year=2026 --project handbook
    """
    given = list(paths or ())
    if not given and not jsonl:
        raise typer.BadParameter("give files, folders, globs or URLs, or --jsonl FILE", param_hint="PATH…")
    if "-" in given and jsonl == "-":
        raise typer.BadParameter("standard input can be read once only", param_hint="--jsonl")
    if (name or document) and "-" not in given:
        raise typer.BadParameter("--name and --id are for standard input: give - as PATH", param_hint="--name, --id")
    started = time.perf_counter()
    with opened(project, as_json) as p:
        receipts = p.add(
            given, jsonl=jsonl or None, name=name, document=document, access=labels(access), metadata=metadata(meta)
        )
    seconds = time.perf_counter() - started
    emit(receipts, as_json, lambda console: show.receipts(console, receipts, seconds))
    return FAILED if any(receipt.status == "failed" for receipt in receipts) else 0


def sync(
    folder: FolderArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if most of its documents are removed.")] = False,
    access: AccessOption = None,
    meta: MetaOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Make the documents of a folder equal to it: add, update, rename, remove.

    Documents that came in otherwise stay. The exit code is 1 if a file failed.

    Example: factform sync documents --dry-run
    """
    started = time.perf_counter()
    with opened(project, as_json) as p:
        changes = p.sync(folder, dry_run=dry_run, force=force, access=labels(access), metadata=metadata(meta))
    seconds = time.perf_counter() - started
    emit(changes, as_json, lambda console: show.changes(console, changes, seconds, dry_run=dry_run))
    return FAILED if any(change.action == "failed" for change in changes) else 0


def watch(
    folder: FolderArgument,
    debounce: Annotated[
        int, typer.Option("--debounce", metavar="MS", min=1, help="Quiet after a change before it is acted on.")
    ] = 200,
    access: AccessOption = None,
    meta: MetaOption = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Sync a folder, then keep its documents equal to it until Ctrl-C. With --json, a JSON object a line.

    A file that cannot be read is reported and does not end it.

    Example: factform watch documents
    """
    options: dict[str, Any] = {"debounce_ms": debounce, "access": labels(access), "metadata": metadata(meta)}
    out = None if as_json else console()
    with until_interrupted() as stop, opened(project, quiet(as_json)) as p:
        sys.stderr.write(f"watching {show.plain(folder)} (Ctrl-C ends it)\n")
        for change in p.watch(folder, stop=stop, **options):
            if out is None:
                sys.stdout.write(json.dumps(records.as_json(change)) + "\n")
                sys.stdout.flush()
            else:
                show.change(out, change, datetime.now().strftime("%H:%M:%S"))


def quiet(as_json: bool) -> bool:
    return as_json or not sys.stderr.isatty()


@contextmanager
def until_interrupted() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or SIGTERM) sets. The second Ctrl-C is as rude as ever."""
    stop = threading.Event()

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: object) -> None:
        signal.signal(number, before[number])
        stop.set()

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def labels(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Access labels as given; None where nothing was said, empty for a single empty one: everybody."""
    if not given:
        return None
    if list(given) == [""]:
        return ()
    if not all(label.strip() for label in given):
        raise typer.BadParameter('"" stands for everybody and for itself only', param_hint="--access")
    return tuple(dict.fromkeys(given))


def metadata(given: Sequence[str] | None) -> dict[str, Any] | None:
    """`KEY=VALUE` pairs; None where nothing was said."""
    if not given:
        return None
    pairs = [item.partition("=") for item in given]
    if bad := [item for item, pair in zip(given, pairs, strict=True) if not pair[0].strip() or not pair[1]]:
        raise typer.BadParameter(f"{bad[0]!r} is not KEY=VALUE", param_hint="--meta")
    return {key.strip(): typed(value) for key, _, value in pairs}


def typed(text: str) -> str | int | float | bool | None:
    """`text` as the JSON scalar it is, else as it stands: `2026` is a number, `"2026"` and `May` are strings."""
    try:
        value = json.loads(text, parse_constant=lambda _: text)
    except (ValueError, RecursionError):
        return text
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return value if isinstance(value, str | int | float | bool | None) and finite else text
