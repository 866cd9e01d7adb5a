"""What is wrong with a store: ledger, blobs and index compared with one another and with what they were when written.

Knows nothing of how damage is mended (`facts/care_repair.py`), nor of models and records. Nothing is changed here, and
nothing is taken on trust: bytes are hashed again, rows are counted by scanning, spans are cut out of their texts.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from factform.errors import FactformError, StoreError
from factform.facts import blobs, ledgerlog
from factform.facts.current import CurrentIndex
from factform.facts.disk import bytes_below, files_below
from factform.facts.index import Index
from factform.facts.ledger import Ledger, VersionRow, WriterLock, migrations
from factform.facts.rebuild import MARK as REBUILD
from factform.facts.sums import Sums
from factform.facts.tablefiles import index_files
from factform.facts.tokens import tokens_folder
from factform.ids import sha256_file

EXAMPLES = 5
"""Examples told of one problem; `count` says how many there are."""

LEAST_FREE = 256 << 20
"""Bytes below which a disk is nearly full: a rebuild or a vacuum needs room for a copy."""

REPAIR = "factform doctor --repair"

Progress = Callable[[str, int, int], None]
"""Called with what is being checked, how many are done and how many there are."""


@dataclass(frozen=True)
class Check:
    """One thing looked at. A `note` is worth knowing and nothing to mend; `command` is what helps with a problem."""

    name: str
    status: Literal["ok", "note", "problem"]
    message: str
    count: int = 0
    examples: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Place:
    """Where a store is and what its index must have been made with."""

    folder: Path
    embedder: Mapping[str, Any]
    dim: int
    chunk_tokens: int
    wait_s: float


def examine(place: Place, *, quick: bool, progress: Progress) -> list[Check]:
    """Every check of a store, in the order in which one rests on the other.

    `quick` leaves out what reads every byte: blobs, files and rows. Raises StoreBusy while another process writes:
    half of a write looks like damage.
    """
    lock = WriterLock(place.folder / "writer.lock", place.wait_s)
    with lock.held():
        checks = check_ledger(place.folder)
        if not any(check.name == "ledger" and check.status == "problem" for check in checks):
            with closing(Ledger.open(place.folder / "ledger.db", lock)) as ledger:
                try:
                    rows = ledger.versions()
                    checks += check_blobs(place.folder / "blobs", rows, quick=quick, progress=progress)
                    checks += check_index(place, ledger, quick=quick, progress=progress)
                    checks += check_state(ledger)
                except FactformError as error:
                    checks.append(problem("ledger", str(error)))
        return [*checks, *check_surroundings(place.folder)]


def problem(name: str, message: str, found: Sequence[str] = (), command: str = REPAIR) -> Check:
    return Check(name, "problem", message, max(1, len(found)), tuple(found[:EXAMPLES]), command)


def verdict(name: str, found: Sequence[str], wrong: str, right: str, *, count: int = 0, command: str = REPAIR) -> Check:
    """A problem told by `wrong` where something was found, else `right` with how many were looked at."""
    return problem(name, wrong, found, command) if found else Check(name, "ok", right, count)


# --- the ledger ---------------------------------------------------------------------------------


def check_ledger(folder: Path) -> list[Check]:
    """The ledger against SQLite's own checks, its schema, and its second copy."""
    path, log = folder / "ledger.db", folder / "ledger.log"
    logged = ledgerlog.read(log)
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as connection:
            wrong = ledger_faults(connection)
            in_step = logged is not None and not logged.damaged and logged.mark == ledgerlog.mark_of(connection)
            if not wrong and in_step and logged is not None:
                wrong = [f"{table} row {number}: {what}" for table, number, what in differing(connection, logged)]
            same = logged is not None and not wrong and not differing(connection, logged)
            count = connection.execute("SELECT count(*) FROM versions").fetchone()[0]
    except (sqlite3.Error, ValueError) as error:
        wrong, in_step, same, count = [f"it cannot be read: {error}"], False, False, 0
    found = [verdict("ledger", wrong, "the ledger is not what was written", "every row is as written", count=count)]
    if logged is None or logged.damaged:
        found.append(problem("ledger_log", "the ledger's second copy is damaged or missing"))
    elif not wrong and not in_step and not same:
        found.append(Check("ledger_log", "note", "the ledger's second copy is behind; the next write brings it up"))
    else:
        found.append(Check("ledger_log", "ok", "the ledger's second copy is whole"))
    return found


def differing(connection: sqlite3.Connection, logged: ledgerlog.Logged | None) -> list[tuple[str, int, str]]:
    return [] if logged is None else ledgerlog.differences(connection, logged)


def ledger_faults(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with the file, its references and its schema."""
    wrong = [str(line) for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    wrong += [f"{row[0]} row {row[1]} refers to no {row[2]}" for row in connection.execute("PRAGMA foreign_key_check")]
    schema = ledgerlog.schema_of(connection)
    if not 0 < schema <= len(migrations()):
        return [*wrong, f"its schema number is {schema}"]
    with closing(sqlite3.connect(":memory:")) as fresh:
        for _, script in migrations()[:schema]:
            fresh.executescript(script)
        if _schema_text(fresh) != _schema_text(connection):
            wrong.append("its tables are not those of its schema number")
    return wrong


def _schema_text(connection: sqlite3.Connection) -> list[Any]:
    return connection.execute("SELECT type, name, tbl_name, sql FROM main.sqlite_master ORDER BY name").fetchall()


def check_state(ledger: Ledger) -> list[Check]:
    """What is on its way, and what failed."""
    erasing = ledger.get_meta("erasing")
    waiting = [row.document for row in ledger.pending()] + ([] if erasing else ledger.removing())
    failed = [row.document for row in ledger.failed()]
    found = [Check("pending", "ok", "nothing is waiting")]
    if waiting:
        found = [Check("pending", "note", "the next write finishes these", len(waiting), tuple(waiting[:EXAMPLES]))]
    if failed:
        message = "these could not be taken in; `factform add` tries again"
        found.append(Check("failed", "note", message, len(failed), tuple(failed[:EXAMPLES])))
    if erasing is not None:
        message = "an erasure was begun and is not finished; whatever opens the documents next goes on with it"
        found.append(Check("erasure", "note", message, command="factform documents"))
    if ledger.get_meta(REBUILD) is not None:
        message = "an index that was begun to be made anew is not finished; `factform index status` says how far it is"
        found.append(Check("rebuild", "note", message, command="factform index rebuild --background, or --drop"))
    return found


# --- blobs --------------------------------------------------------------------------------------


def check_blobs(folder: Path, rows: Sequence[VersionRow], *, quick: bool, progress: Progress) -> list[Check]:
    """Originals and canonical texts of every version, re-hashed, and blobs that no version names."""
    kept = [row for row in rows if row.status != "failed" and row.pruned_at is None]
    bad = damaged_blobs(folder, named_blobs(kept), quick=quick, progress=progress)
    originals = _documents(kept, bad, lambda row: row.sha256)
    texts = _documents(kept, bad, lambda row: row.text_sha256)
    orphans = sorted(set(blob_names(folder)) - named_blobs(rows))
    found = [
        verdict(
            "originals",
            originals,
            "the stored bytes of these versions are damaged or missing: they are not cited until mended; where "
            "--repair cannot, add the documents again",
            "all originals are there" if quick else "all originals hash to their names",
            count=len({row.sha256 for row in kept}),
        ),
        verdict(
            "texts",
            texts,
            "the canonical texts of these versions are damaged or missing: they are not cited until mended",
            "all canonical texts are there" if quick else "all canonical texts hash to their names",
            count=len({row.text_sha256 for row in kept}),
        ),
    ]
    if places := _documents(kept, bad, lambda row: row.places_sha256):
        found.append(problem("places", "where these versions' quotes stand in the originals is not known", places))
    if orphans:
        message = "blobs that no version names, left by an interrupted add or a failed document"
        found.append(Check("orphans", "note", message, len(orphans), tuple(name[:16] for name in orphans[:EXAMPLES])))
    else:
        found.append(Check("orphans", "ok", "every blob belongs to a version"))
    return found


def named_blobs(rows: Sequence[VersionRow]) -> set[str]:
    """Digests of all blobs that these versions need; pruned ones need none."""
    kept = [row for row in rows if row.pruned_at is None]
    return {digest for row in kept for digest in (row.sha256, row.text_sha256, row.places_sha256) if digest}


def damaged_blobs(folder: Path, digests: set[str], *, quick: bool, progress: Progress) -> set[str]:
    """Those of `digests` whose blob is missing or (unless `quick`) does not hash to its name."""
    bad = set()
    for done, digest in enumerate(sorted(digests), 1):
        try:
            path = blobs.blob_path(folder, digest)
            if not path.is_file() or (not quick and sha256_file(path) != digest):
                bad.add(digest)
        except (OSError, StoreError):
            bad.add(digest)
        progress("blobs", done, len(digests))
    return bad


def blob_names(folder: Path) -> Iterator[str]:
    """Names of the blobs that lie in `folder`."""
    for path in folder.glob("??/*"):
        if len(path.name) == 62:
            yield path.parent.name + path.name


def _documents(rows: Sequence[VersionRow], bad: set[str], of: Callable[[VersionRow], str | None]) -> list[str]:
    return sorted({f"{row.document} version {row.version}" for row in rows if of(row) in bad})


# --- the index ----------------------------------------------------------------------------------


def check_index(place: Place, ledger: Ledger, *, quick: bool, progress: Progress) -> list[Check]:
    """The index's files against their checksums, its rows against themselves, the texts and the ledger."""
    current = CurrentIndex(
        place.folder, ledger, embedder=place.embedder, dim=place.dim, chunk_tokens=place.chunk_tokens
    )
    wanted = {row.document: row for row in ledger.all_current() if row.chunks}
    table = ledger.get_meta("table")
    if table is None and not wanted:
        return [Check("index", "ok", "there is nothing to index yet")]
    found = [] if quick or table is None else [check_files(place.folder / "index", table)]
    try:
        current.check_settings()
        index = current.get()
        found.append(Check("index", "ok", "it can be opened"))
        found += check_rows(place, index, wanted, set(ledger.removing()), quick=quick, progress=progress)
        return [*found, check_words(index)]
    except FactformError as error:
        return [*found, problem("index", str(error))]


def check_files(folder: Path, table: str) -> Check:
    """Every file of a table against the checksum noted when it was written."""
    sums = Sums(folder / f"{table}.sums", folder / f"{table}.lance")
    compared = sums.compare(list(index_files(sums.folder)))
    wrong = [*compared.changed, *(f"{name} (missing)" for name in compared.missing)]
    if compared.unlisted and not compared.checked:
        return problem("index_files", "the checksums of the index's files are lost")
    right = "every file is as it was written"
    return verdict("index_files", wrong, "files of the index were changed", right, count=compared.checked)


def check_rows(
    place: Place,
    index: Index,
    wanted: Mapping[str, VersionRow],
    removing: set[str],
    *,
    quick: bool,
    progress: Progress,
) -> list[Check]:
    """Rows by scan: how many of which version, each against its seal, its text and the unit length of its vector."""
    texts = lru_cache(maxsize=64)(lambda digest: blobs.get(place.folder / "blobs", digest).decode("utf-8"))
    held: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    twice: list[str] = []
    damaged: list[str] = []
    total = index.count()
    for done, (row, search, vector) in enumerate(index.scan(), 1):
        chunk = row.chunk
        held[chunk.document, chunk.version] += 1
        if chunk.id in seen:
            twice.append(chunk.id)
        seen.add(chunk.id)
        entry = wanted.get(chunk.document)
        if not quick and (fault := _row_fault(index, row, search, vector, entry, texts)):
            damaged.append(f"{chunk.document} [{chunk.start}, {chunk.end}): {fault}")
        progress("rows", done, total)
    expected = {(name, row.version): row.chunks for name, row in wanted.items()}
    stale = sorted(f"{d} version {v}" for d, v in set(held) - set(expected) if d not in removing)
    short = sorted(f"{d}: {held[d, v]} of {n}" for (d, v), n in expected.items() if held[d, v] != n)
    found = [
        verdict(
            "counts", short, "the index does not hold what the ledger says", "as many as the ledger says", count=total
        ),
        verdict("stale", stale, "rows of versions that are no longer current", "no stale rows", count=total),
        verdict("duplicates", twice, "chunks that are there twice", "every chunk is there once", count=total),
    ]
    if not quick:
        found.append(verdict("rows", damaged, "rows that are not what was stored", "every row is sound", count=total))
    return found


def _row_fault(
    index: Index, row: Any, search: str, vector: Any, entry: VersionRow | None, texts: Callable[[str], str]
) -> str:
    """What is wrong with a row, "" for nothing."""
    from factform.facts.rows import search_text

    chunk = row.chunk
    try:
        index.check_row(row)
    except StoreError:
        return "its text or what is told with it was changed"
    if search != search_text(chunk):
        return "the text it is found by is not its own"
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or abs(norm - 1.0) > 1e-2:
        return f"its vector has length {norm:.3g}, not 1"
    if entry is None or entry.version != chunk.version:
        return ""
    if tuple(row.access) != entry.access:
        return "its access labels are not those of its document"
    with suppress(StoreError):  # a damaged text is told as such, once
        if entry.text_sha256 and texts(entry.text_sha256)[chunk.start : chunk.end] != chunk.text:
            return "its span of the canonical text reads differently"
    return ""


def check_words(index: Index) -> Check:
    """Whether what is kept for searching is whole. What is not is passed over and made anew: a note, no problem."""
    kept = index.kept_words()
    spoiled = [name for name, sound in kept.items() if not sound]
    if spoiled:
        message = "what is kept for searching is damaged; it is not used, every process reads the table instead"
        return Check("words", "note", message, len(spoiled), tuple(spoiled[:EXAMPLES]))
    if index.wants_optimizing():
        message = "each process reads the newest rows from the table itself; the next write keeps them for all"
        return Check("words", "note", message)
    return Check("words", "ok", "what is kept for searching is whole", len(kept))


# --- around the store ---------------------------------------------------------------------------


def check_surroundings(folder: Path) -> list[Check]:
    """Room on the disk, permissions, SQLite's version, and what repairs have put aside."""
    found = []
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE:
        message = f"only {free >> 20} MiB are free on this disk: writes will fail"
        found.append(Check("disk", "problem", message, 1, (), "free some space"))
    else:
        found.append(Check("disk", "ok", f"{free >> 30} GiB are free"))
    below = (Path(place, name) for place, folders, files in os.walk(folder) for name in [*folders, *files])
    barred = [str(path.relative_to(folder)) for path in below if not _usable(path)]
    found.append(
        verdict("permissions", barred, "these cannot be read and written", "all can be used", command="chmod u+rw")
    )
    version = sqlite3.sqlite_version_info
    if (3, 7, 0) <= version <= (3, 51, 2):
        message = f"SQLite {sqlite3.sqlite_version} has the WAL-reset fault; Factform uses a rollback journal instead"
        found.append(Check("sqlite", "note", message))
    if size := bytes_below(tokens_folder(folder)):
        found.append(Check("token_vectors", "ok", f"{size >> 20:,} MiB of token vectors are kept for reranking"))
    aside = dict(files_below(folder / "quarantine"))
    if aside:
        size = sum(aside.values())
        message = (
            f"{size:,} bytes of damaged files were put aside in quarantine/; delete them when you need them no more"
        )
        found.append(Check("quarantine", "note", message, len(aside), tuple(path.name for path in aside)[:EXAMPLES]))
    return found


def _usable(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.access(path, os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0))
    return True
