"""What is damaged in a store, mended from what is not: the ledger from its log, texts from originals.

Knows nothing of how damage is found (`facts/care.py`) or shown. It never makes things worse: a damaged file is moved to
`quarantine/` before anything takes its place, and what cannot be proved right is left and told.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from factform.errors import DocumentError, FactformError, StoreError
from factform.facts import blobs, ledgerlog
from factform.facts.care import Check, Place, Progress, check_ledger, damaged_blobs, named_blobs
from factform.facts.disk import fsync_path
from factform.facts.ledger import Ledger, VersionRow, WriterLock, migrations
from factform.facts.mend import mend
from factform.facts.places import encode_places
from factform.ids import sha256
from factform.records import Parsed, Source

Original = Callable[[VersionRow], bytes | None]
"""The bytes at the source of a version, if they are still to be had."""

Parse = Callable[[Source], Parsed]
"""How originals are read again: within limits, they may be hostile. Raises DocumentError."""

INDEX_CHECKS = {"index", "index_files", "counts", "stale", "duplicates", "rows"}
"""Problems that making the index anew ends."""


@dataclass(frozen=True)
class Action:
    """One thing that was mended, and how; `document` where it concerns one."""

    what: str
    document: str = ""


def repair_truth(place: Place, original: Original, parse: Parse, progress: Progress) -> list[Action]:
    """Mend ledger and blobs, as far as it can be done. Raises StoreBusy while another process writes."""
    lock = WriterLock(place.folder / "writer.lock", place.wait_s)
    with lock.held():
        done = repair_ledger(place.folder, lock)
        with closing(Ledger.open(place.folder / "ledger.db", lock)) as ledger:
            rows = [row for row in ledger.versions() if row.status != "failed" and row.pruned_at is None]
        return done + repair_blobs(place.folder, rows, original, parse, progress)


def needs_index(checks: Sequence[Check]) -> bool:
    """Whether the index must be made anew."""
    return any(check.status == "problem" and check.name in INDEX_CHECKS for check in checks)


# --- the ledger ---------------------------------------------------------------------------------


def repair_ledger(folder: Path, lock: WriterLock) -> list[Action]:
    """The ledger from its log, or the log from the ledger: whichever is sound. Raises StoreError when neither is."""
    wrong = {check.name for check in check_ledger(folder) if check.status == "problem"}
    if not wrong:
        return []
    if wrong == {"ledger_log"}:
        aside(folder, folder / "ledger.log")
        with closing(Ledger.open(folder / "ledger.db", lock)) as ledger:
            ledger.rewrite_log()
        return [Action("the ledger's second copy was written anew from the ledger")]
    logged = ledgerlog.read(folder / "ledger.log")
    if logged is None or logged.damaged or not 0 < logged.schema <= len(migrations()):
        raise StoreError(
            f"the ledger {folder / 'ledger.db'} is damaged and so is its second copy; restore the project from a "
            "backup with `factform backup restore`"
        )
    _restore_ledger(folder, logged)
    with closing(Ledger.open(folder / "ledger.db", lock)) as ledger:
        ledger.rewrite_log()
    return [Action("the ledger was made anew from its second copy")]


def _restore_ledger(folder: Path, logged: ledgerlog.Logged) -> None:
    """Make a new ledger beside the damaged one, compare it with the log, and only then let it take its place."""
    scratch = folder / f"restoring-{secrets.token_hex(4)}.db"
    try:
        with closing(sqlite3.connect(scratch, isolation_level=None)) as fresh:
            fresh.execute("PRAGMA synchronous = FULL")
            for number, script in migrations()[: logged.schema]:
                fresh.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
            ledgerlog.refill(fresh, logged)
            if left := ledgerlog.differences(fresh, logged):
                raise StoreError(f"the ledger's second copy cannot be put back: {len(left)} rows differ")
        aside(folder, folder / "ledger.db")
        # A journal of the damaged file must not be played into the new one.
        (folder / "ledger.db-journal").unlink(missing_ok=True)
        scratch.replace(folder / "ledger.db")
        fsync_path(folder)
    finally:
        scratch.unlink(missing_ok=True)


def aside(folder: Path, path: Path) -> None:
    """Keep a copy of a damaged file in `quarantine/`; the file itself stays until something takes its place."""
    if not path.is_file():
        return
    kept = folder / "quarantine" / f"{path.name}.{secrets.token_hex(4)}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, kept)
    fsync_path(kept)
    fsync_path(kept.parent)


# --- blobs --------------------------------------------------------------------------------------


def repair_blobs(
    folder: Path, rows: Sequence[VersionRow], original: Original, parse: Parse, progress: Progress
) -> list[Action]:
    """Damaged originals from their sources, canonical texts from the originals, both from one flipped bit or byte."""
    store = folder / "blobs"
    bad = damaged_blobs(store, named_blobs(rows), quick=False, progress=progress)
    done: list[Action] = []
    for row in rows:  # originals first: texts are read from them
        if row.sha256 in bad and (how := _mend_blob(folder, row.sha256, lambda row=row: original(row))):  # type: ignore[misc]
            bad.discard(row.sha256)
            done.append(Action(f"the stored bytes of version {row.version} were {how}", row.document))
    for row in rows:
        digest = row.text_sha256
        if digest in bad and (how := _mend_blob(folder, digest, lambda row=row: _read_again(store, row, parse))):  # type: ignore[misc]
            bad.discard(digest)
            done.append(Action(f"the canonical text of version {row.version} was {how}", row.document))
    for row in rows:
        digest = row.places_sha256
        if digest in bad and (how := _mend_blob(folder, digest, lambda row=row: _places_again(store, row, parse))):  # type: ignore[misc]
            bad.discard(digest)
            done.append(Action(f"what places version {row.version} has in its original was {how}", row.document))
    return done


def _mend_blob(folder: Path, digest: str, other: Callable[[], bytes | None]) -> str:
    """Put a blob right and say how, "" where it cannot be. `other` gives bytes that may be the right ones."""
    path = blobs.blob_path(folder / "blobs", digest)
    try:
        damaged = path.read_bytes()
    except OSError:
        damaged = None
    fresh, how = other(), "taken from its source again"
    if fresh is None or sha256(fresh) != digest:
        fresh, how = (mend(damaged, digest) if damaged else None), "put right: one flipped bit or byte"
    if fresh is None:
        return ""
    aside(folder, path)
    if path.exists() and not path.is_file():
        path.rename(folder / "quarantine" / f"{path.name}.{secrets.token_hex(4)}")
    blobs.put(folder / "blobs", [fresh])
    return how


def _read_again(store: Path, row: VersionRow, parse: Parse) -> bytes | None:
    """The canonical text as its original gives it now."""
    try:
        return parse(row.source(blobs.get(store, row.sha256))).text.encode("utf-8")
    except (DocumentError, FactformError, UnicodeEncodeError):
        return None


def _places_again(store: Path, row: VersionRow, parse: Parse) -> bytes | None:
    """The places of its text as its original gives them now."""
    try:
        return encode_places(parse(row.source(blobs.get(store, row.sha256))))
    except (DocumentError, FactformError, UnicodeEncodeError):
        return None


def source_bytes(root: Path, row: VersionRow, most: int) -> bytes | None:
    """The file a version came from, where it still has the same bytes; `root` is what document ids are relative to."""
    path = (root / row.document).resolve()
    try:
        if not path.is_relative_to(root.resolve()) or not path.is_file() or path.stat().st_size > most:
            return None
        data = path.read_bytes()
    except (OSError, ValueError):
        return None
    return data if sha256(data) == row.sha256 else None
