"""A whole project in one checked file, and back: made while others write, verified before anything is put in place.

Knows nothing of what the files mean beyond the two SQLite databases, which are copied through SQLite so that a copy
made while somebody writes is one moment's. A backup is a plain tar of regular files, its last member the list of all
others with their SHA-256: a file cut short has no list, and a changed one does not match it.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from factform.errors import ProjectError, StoreError
from factform.facts.disk import failpoint, files_below, fsync_path, refused
from factform.facts.ledger import Ledger, WriterLock
from factform.ids import sha256_file, sha256_json
from factform.settings import FILE, STATE

FORMAT = 1
LIST = "MANIFEST.json"
PIECE = 1 << 20
LARGEST_LIST = 1 << 30

ACCESS = "access.toml"
"""Without it whoever asks by name would be restricted by nothing, or be refused."""

DATABASES = ("ledger.db", "audit.db")
WORDS = ".words/"
"""In the names of files that are kept for searching, derived from the index's table."""

APART = ("ledger.", "audit.", "writer.lock", "blobs", "index", "kv", "cache", "training", "quarantine", "restoring-")
"""Beginnings of names in `.factform` that are not simply copied: taken in otherwise, or left out as made again."""

UNFINISHED = ".factform-unfinished-"
"""Beginning of the names of folders in which backups are made and unpacked, beside what they become."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, bytes done and bytes in all."""


@dataclass(frozen=True)
class BackupReport:
    """What a backup holds. `sha256` is that of the whole file, to be kept elsewhere. `damaged` names the stored files
    that were damaged or missing when it was made: the project was backed up as it was."""

    file: str
    created: str
    files: int
    bytes: int
    documents: int
    versions: int
    records: int
    with_index: bool
    sha256: str
    damaged: tuple[str, ...] = ()


def make(project: Path, file: Path, *, with_index: bool, wait_s: float, progress: Progress) -> BackupReport:
    """Write a backup of `project` to `file`, which must not be there. Interrupted, it leaves no file of that name.

    Without the index nobody has to wait: the ledger is copied as of one moment, blobs never change and are there before
    the ledger names them. With it, writers wait until the index's files are copied; StoreBusy after `wait_s`.
    """
    if file.exists():
        raise ProjectError(f"{file} is there already: name another file, a backup is never written over")
    if not (project / FILE).is_file():
        raise ProjectError(f"no {FILE} in {project}: there is no project to back up")
    state, goal = project / STATE, file.absolute()
    try:
        with _unfinished(goal.parent) as scratch:
            fresh = scratch / "backup.tar"
            with WriterLock(state / "writer.lock", wait_s).held() if with_index else nullcontext():
                _copy_databases(state, scratch)
                failpoint("backup_databases_copied")
                with fresh.open("xb") as out:
                    _write(out, _members(project, scratch, with_index=with_index), with_index, progress)
                    out.flush()
                    os.fsync(out.fileno())
            failpoint("backup_written")
            report = _unpack(fresh, scratch / "read", [f"{STATE}/{name}" for name in DATABASES], progress)
            failpoint("backup_verified")
            fresh.replace(goal)
            failpoint("backup_renamed")
            _sync_or_delete(goal)
    except OSError as error:
        raise refused(f"the backup {file} cannot be written", error) from error
    return BackupReport(**{**vars(report), "file": str(file)})


def _sync_or_delete(file: Path) -> None:
    """Make the name of a backup durable. Where that fails it is no backup: it might be gone after a power cut."""
    try:
        fsync_path(file.parent)
    except OSError:
        file.unlink()
        raise


@contextmanager
def _unfinished(parent: Path) -> Iterator[Path]:
    """A folder in `parent` for what is not finished, gone at the end of the block. What a process that died left there
    goes first: it holds documents, and nobody would look for it. A lock tells the living."""
    for path in parent.glob(f"{UNFINISHED}*"):
        with suppress(OSError), _locked(path):
            shutil.rmtree(path)
    scratch = parent / f"{UNFINISHED}{secrets.token_hex(4)}"
    scratch.mkdir()
    try:
        with _locked(scratch):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder. Raises OSError where another process does; a process that dies gives it back."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def verify(file: Path, progress: Progress) -> BackupReport:
    """Read every byte of a backup and everything it says of itself. Raises StoreError with what is wrong."""
    with tempfile.TemporaryDirectory(prefix="factform-verify-") as scratch:
        return _unpack(file, Path(scratch), [f"{STATE}/{name}" for name in DATABASES], progress)


def restore(file: Path, target: Path, progress: Progress) -> BackupReport:
    """Make `target`, which must be empty or not there, the project that `file` holds.

    Everything is unpacked beside it and verified there; then one rename puts it in place. Interrupted, `target` is as
    it was.
    """
    target = target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ProjectError(
            f"{target} is not empty: restore into a new folder, and exchange the folders when it is well"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(target.parent) as scratch:
            fresh = scratch / "project"
            fresh.mkdir()
            report = _unpack(file, fresh, None, progress)
            failpoint("restore_unpacked")
            _write_log(fresh / STATE)
            failpoint("restore_log_written")
            for folder in [*sorted((p for p in fresh.rglob("*") if p.is_dir()), reverse=True), fresh]:
                fsync_path(folder)
            failpoint("restore_synced")
            fresh.replace(target)
            failpoint("restore_renamed")
            fsync_path(target.parent)
    except OSError as error:
        raise refused(f"{target} cannot be restored", error) from error
    return report


def _write_log(state: Path) -> None:
    """The ledger's second copy, which a backup does not hold."""
    if (state / "ledger.db").exists():
        with closing(Ledger.open(state / "ledger.db", WriterLock(state / "writer.lock", 0.0))) as ledger:
            ledger.rewrite_log()


# --- writing ------------------------------------------------------------------------------------


def _copy_databases(state: Path, copies: Path) -> None:
    for name in DATABASES:
        if not (state / name).exists():
            continue
        try:
            with closing(sqlite3.connect(f"file:{state / name}?mode=rw", uri=True)) as source:
                with closing(sqlite3.connect(copies / name)) as copy:
                    source.backup(copy)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            code = getattr(error, "sqlite_errorname", "")
            full = code == "SQLITE_FULL" or code.startswith("SQLITE_IOERR")
            way_out = "free some space, check the disk and try again" if full else "run `factform doctor`"
            raise StoreError(f"{state / name} cannot be copied: {error}; {way_out}") from error


def _members(project: Path, copies: Path, *, with_index: bool) -> list[tuple[str, Path]]:
    """(name in the backup, file) of everything that belongs in it, by name."""
    state = project / STATE
    found = {name: project / name for name in (FILE, ACCESS) if name == FILE or (project / name).is_file()}
    found |= {f"{STATE}/{name}": copies / name for name in DATABASES if (copies / name).exists()}
    others = (path for path in state.iterdir() if path.is_dir() and not path.name.startswith(APART))
    folders = [(project / "behaviors", "behaviors"), *((path, f"{STATE}/{path.name}") for path in others)]
    if with_index:
        folders.append((state / "index", f"{STATE}/index"))
    for folder, name in folders:
        files = (path for path, _ in files_below(folder) if not path.is_symlink())
        found |= {f"{name}/{path.relative_to(folder).as_posix()}": path for path in files}
    for name in _blob_names(copies / "ledger.db"):
        found[name] = project / name
    return sorted(found.items())


def _blob_names(ledger: Path) -> dict[str, str]:
    """Name in the backup -> digest of every blob that the versions of a ledger name, failed and pruned ones apart."""
    if not ledger.exists():
        return {}
    with closing(sqlite3.connect(ledger)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(versions)")]
        columns = [name for name in names if name.endswith("sha256")]
        pruned = " AND pruned_at IS NULL" if "pruned_at" in names else ""  # ledgers of old backups have no such column
        query = f"SELECT {', '.join(columns)} FROM versions WHERE status <> 'failed'{pruned}"
        digests = {digest for row in connection.execute(query) for digest in row if digest}
    return {f"{STATE}/blobs/{digest[:2]}/{digest[2:]}": digest for digest in sorted(digests)}


def _write(out: IO[bytes], members: Sequence[tuple[str, Path]], with_index: bool, progress: Progress) -> None:
    sizes = {name: path.stat().st_size for name, path in members if path.is_file()}
    total, done = sum(sizes.values()), 0
    entries = []
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in members:
            if name not in sizes:
                continue  # told by `damaged`: what is there must not stay without a backup for what is not
            try:
                file = path.open("rb")
            except FileNotFoundError:
                if WORDS not in name:
                    raise
                continue  # any process makes these anew at any time, and whoever lacks one as well
            with file:
                status, read = os.fstat(file.fileno()), _Hashed(file)
                info = tarfile.TarInfo(name)
                info.size, info.mtime = status.st_size, status.st_mtime
                tar.addfile(info, cast(IO[bytes], read))
            entries.append({"path": name, "size": info.size, "sha256": read.digest.hexdigest()})
            done += info.size
            progress("backup", done, max(total, done))
        body = json.dumps(_list(entries, with_index)).encode()
        info = tarfile.TarInfo(LIST)
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))


class _Hashed:
    """A file whose bytes are hashed as they are read: one that grows meanwhile is what was read of it."""

    def __init__(self, file: IO[bytes]):
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self.digest.update(piece)
        return piece


def _list(entries: Sequence[dict[str, Any]], with_index: bool) -> dict[str, Any]:
    from factform import __version__

    created = datetime.now(UTC).isoformat(timespec="seconds")
    told = {"format": FORMAT, "created": created, "factform": __version__, "with_index": with_index, "files": entries}
    return {**told, "sha256": sha256_json(told)}


# --- reading ------------------------------------------------------------------------------------


def _unpack(file: Path, folder: Path, only: Sequence[str] | None, progress: Progress) -> BackupReport:
    """Verify a backup; its files are written below `folder` (all, or those named in `only`)."""
    found: dict[str, tuple[int, str]] = {}
    told: dict[str, Any] | None = None
    total = file.stat().st_size if file.is_file() else 0
    try:
        with file.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            for member in tar:
                if told is not None:
                    raise StoreError(f"{file}: there is something behind its list of files")
                name = _checked_name(file, member, found)
                content = tar.extractfile(member)
                if content is None:
                    raise StoreError(f"{file}: {name} cannot be read")
                if name == LIST:
                    told = _checked_list(file, content.read(LARGEST_LIST))
                    continue
                keep = only is None or name in only
                found[name] = member.size, _copied(content, folder / name if keep else None)
                if keep and member.mtime:
                    # Which came first is what tells Lance the files that nobody needs any more.
                    with suppress(ValueError, OverflowError):
                        os.utime(folder / name, (member.mtime, member.mtime))
                progress("verify", raw.tell(), total)
    except (tarfile.TarError, EOFError) as error:
        raise StoreError(f"{file} is not a whole backup: {error}") from error
    except OSError as error:
        raise refused(f"{file} cannot be read or unpacked", error) from error
    if told is None:
        raise StoreError(f"{file} is not a whole backup: the list of its files is missing, so it was cut short")
    expected = {entry["path"]: (entry["size"], entry["sha256"]) for entry in told["files"]}
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if wrong:
        raise StoreError(f"{file} is damaged: {len(wrong)} files are not what was backed up, the first is {wrong[0]}")
    documents, versions = _check_ledger(file, folder / STATE / "ledger.db")
    named = _blob_names(folder / STATE / "ledger.db")
    return BackupReport(
        file=str(file),
        created=told["created"],
        files=len(found),
        bytes=sum(size for size, _ in found.values()),
        documents=documents,
        versions=versions,
        records=_check_records(file, folder / STATE / "audit.db"),
        with_index=told["with_index"],
        sha256=sha256_file(file),
        damaged=tuple(name for name, digest in named.items() if found.get(name, (0, ""))[1] != digest),
    )


def _checked_name(file: Path, member: tarfile.TarInfo, seen: dict[str, Any]) -> str:
    """The name of a member that is safe to write: a regular file below the folder, and there only once."""
    path = PurePosixPath(member.name)
    safe = member.isreg() and not path.is_absolute() and ".." not in path.parts and str(path) == member.name
    if not safe or "\\" in member.name or "\0" in member.name or member.name in seen:
        raise StoreError(f"{file}: a member is no plain file of a project; this is not a backup of Factform")
    if member.name not in (LIST, FILE, ACCESS) and path.parts[0] not in ("behaviors", STATE):
        raise StoreError(f"{file}: {member.name!r} belongs to no project; this is not a backup of Factform")
    return member.name


def _checked_list(file: Path, data: bytes) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(data)
        stated = told.pop("sha256")
    except (ValueError, LookupError, AttributeError, TypeError):
        raise StoreError(f"{file} is damaged: the list of its files cannot be read") from None
    if stated != sha256_json(told):
        raise StoreError(f"{file} is damaged: the list of its files was changed")
    if told["format"] != FORMAT:
        raise StoreError(f"{file} has format {told['format']}, this factform reads {FORMAT}: use a newer factform")
    return told


def _copied(content: IO[bytes], path: Path | None) -> str:
    """SHA-256 of `content`, which is written to `path`, if there is one, and forced to disk."""
    digest = hashlib.sha256()
    if path is None:
        for piece in _pieces(content):
            digest.update(piece)
        return digest.hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        for piece in _pieces(content):
            digest.update(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _pieces(content: IO[bytes]) -> Iterator[bytes]:
    while piece := content.read(PIECE):
        yield piece


def _check_ledger(file: Path, ledger: Path) -> tuple[int, int]:
    """Documents and versions of the unpacked ledger, which must be whole."""
    from factform.facts.care import ledger_faults

    if not ledger.exists():
        return 0, 0
    try:
        with closing(sqlite3.connect(ledger)) as connection:
            if wrong := ledger_faults(connection):
                raise StoreError(f"{file}: its ledger is damaged: {wrong[0]}")
            (documents,) = connection.execute("SELECT count(*) FROM documents WHERE current IS NOT NULL").fetchone()
            (versions,) = connection.execute("SELECT count(*) FROM versions").fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreError(f"{file}: its ledger is damaged: {error}") from error
    return int(documents), int(versions)


def _check_records(file: Path, audit: Path) -> int:
    """How many records of answers the unpacked log holds; its chain must be whole."""
    from factform.audit.log import AuditLog

    if not audit.exists():
        return 0
    log = AuditLog.open(audit)
    if problems := log.verify():
        raise StoreError(f"{file}: its record of answers is damaged: {problems[0]}")
    return log.head()[0]
