"""Verbs of whoever looks after a project.

Knows nothing of how damage is found or mended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from factform.cli import show
from factform.cli.options import HERE, JsonOption, ProjectOption
from factform.cli.run import FAILED, emit, opened

if TYPE_CHECKING:
    from rich.console import Console

    from factform.backup import BackupReport
    from factform.facts.prune import PruneReport


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what reads every byte.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended first.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Check store, index, records, adapters and behaviors. The exit code is 1 if problems are left.

    Example: factform doctor --repair
    """
    with opened(project, as_json) as p:
        found = p.doctor(quick=quick, repair=repair)
    emit(found, as_json, lambda console: health(console, found))
    return FAILED if found["problems"] else 0


def erase(
    documents: Annotated[list[str], typer.Argument(metavar="DOCUMENT…", help="Document ids.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: it cannot be undone.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Remove documents with every byte made of them: versions, index, records, caches. It cannot be undone.

    The receipt says what was removed and what could not be reached, such as backups made before.

    Example: factform erase people/jones.docx --yes
    """
    if not yes and (as_json or not typer.confirm(f"Erase {len(documents)} document(s) for good?", err=True)):
        raise typer.BadParameter("erasing cannot be undone: say --yes", param_hint="--yes")
    with opened(project, as_json) as p:
        found = p.erase(documents)

    def write(console: Console) -> None:
        console.print(f"erased {len(found.documents)} documents, {found.versions} versions: {found.files} files")
        console.print(f"records of answers: {found.records_erased} erased, {found.records_shortened} shortened")
        if found.shared:
            console.print(f"{found.shared} stored files were left: other documents have the same bytes")
        for name in found.not_reached:
            console.print(f"not reached: {show.plain(name)}")

    emit(found, as_json, write)
    return 0


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Remove the bytes of old versions that the settings do not keep: facts.keep_versions and facts.keep_days.

    Nothing that is current and, unless facts.keep_cited is false, nothing that an answer cites. `history` still lists
    them.

    Example: factform prune --dry-run
    """
    with opened(project, as_json) as p:
        found = p.prune(dry_run=dry_run)
    emit(found, as_json, lambda console: pruned(console, found))


def pruned(console: Console, found: PruneReport) -> None:
    """A row for each version, then totals."""
    if not (found.keep_versions or found.keep_days):
        console.print("every version is kept: set facts.keep_versions or facts.keep_days in factform.toml")
        return
    shown = [*found.versions, *found.cited]
    if shown:
        table = show._table("document", "version", "status", "until", "#chunks", "")
        for v in shown:
            told = "kept: an answer cites it" if v.cited else "would go" if found.dry_run else "gone"
            show._row(table, v.document, v.version, v.status, (v.ended_at or "")[:19], v.chunks, told)
        console.print(table)
    counted = f"{len(found.versions)} versions, {found.files} files of {found.bytes:,} bytes"
    if found.dry_run:
        console.print(f"would prune {counted}, and make the index smaller; a dry run: nothing was changed")
    else:
        console.print(f"pruned {counted}; the index is {found.index_bytes:,} bytes smaller")


def make(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; it must not be there.", show_default=False)],
    with_index: Annotated[bool, typer.Option("--with-index", help="Take the index in: restoring is faster.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Write the whole project to one checked file, while others go on reading and writing.

    Settings, behaviors, documents in all versions, records of answers, adapters; not the sources, models and caches.

    Example: factform backup make handbook.tar
    """
    from factform.backup import make as make_backup
    from factform.settings import load_settings

    wait_s = load_settings(project.absolute()).facts.writer_wait_s
    with _reporting(as_json) as progress:
        found = make_backup(project.absolute(), file, with_index=with_index, wait_s=wait_s, progress=progress)
    return _told(found, as_json, "backed up")


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Read every byte of a backup and check it against itself. The exit code is 1 if anything is wrong.

    Example: factform backup verify handbook.tar
    """
    from factform.backup import verify as verify_backup

    with _reporting(as_json) as progress:
        found = verify_backup(file, progress)
    return _told(found, as_json, "sound")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Make the folder --project, which must be empty or not there, the project of a backup.

    All is verified before anything is put in place. Without an index in it, one is made when the project is first used.

    Example: factform backup restore handbook.tar --project handbook
    """
    from factform.backup import restore as restore_backup

    with _reporting(as_json) as progress:
        found = restore_backup(file, project, progress)
    return _told(found, as_json, "restored")


@contextmanager
def _reporting(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    from factform.cli.progress import reporter

    with reporter(quiet=as_json) as report:
        yield lambda what, done, of: report(what, done, of, "")


def _told(found: BackupReport, as_json: bool, what: str) -> int:
    def write(console: Console) -> None:
        held = f"{found.documents:,} documents, {found.versions:,} versions, {found.records:,} records"
        index = "with the index" if found.with_index else "without the index"
        console.print(f"{what}: {show.plain(found.file)}, {found.bytes:,} bytes in {found.files:,} files, {index}")
        console.print(f"{held}; made {found.created}; SHA-256 {found.sha256}")
        for name in found.damaged:
            console.print(f"problem: {name} was damaged or missing when it was made; run `factform doctor --repair`")

    emit(found, as_json, write)
    return FAILED if found.damaged else 0


def health(console: Console, found: Mapping[str, Any]) -> None:
    apart = ("problems", "checks", "repaired", "kv")
    show.mapping(console, {name: value for name, value in found.items() if name not in apart and value is not None})
    if found["kv"]:
        show.encoded(console, found["kv"])
    for check in found["checks"]:
        number = f" ({check['count']:,})" if check["count"] else ""
        console.print(f"{check['status']:8} {check['name']}{number}: {show.plain(check['message'])}")
    for action in found["repaired"]:
        where = f"{action['document']}: " if action["document"] else ""
        console.print(f"repaired {show.plain(where + action['what'])}")
    for problem in found["problems"]:
        console.print(f"problem: {show.plain(problem)}")
    console.print("no problems" if not found["problems"] else f"{len(found['problems'])} problem(s)")
