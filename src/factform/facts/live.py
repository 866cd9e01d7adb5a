"""The rows of a table as they are searched, brought up to the table's newest version before each search.

Knows nothing of questions or scores, nor of what is written to the table. It follows the table alone: rows changed
since the version it knows are read, and where the number of rows says that others are gone, which. So whoever wrote,
and wherever that was interrupted, what a table version holds is what is searched.

Of a document only the rows that came with its latest commit count. That makes a replacement atomic that takes two
commits, new rows in and old rows out, and one commit that does both would read the whole table.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from factform.facts import packs
from factform.facts.lexical import View
from factform.facts.segment import FOREVER, Array, Segment, Tail, load, merged, none, save, shrunk
from factform.facts.tableversions import manifest, numbers, reading
from factform.facts.visible import Visible, document_key

READ = ("id", "document_key", "access", "search_text", "vector", "_row_last_updated_at_version")

MERGE_ROWS = 512
"""Rows since the last segment at which a new one is made: some milliseconds of reading for a new process."""

MERGE_SHARE = 50
"""A segment of many rows is made anew only when a fiftieth of them came since: what it costs grows with the rows."""

AT_ONCE = 20_000
"""Rows that wait in memory, word by word, while a whole table is read."""

KEPT_MASKS = 16


class LiveRows:
    """Rows of the table in `path`, searched by any thread. `folder` is for what is kept between processes; `names` are
    the columns that a search tells of a row, besides its vector."""

    def __init__(self, path: Path, folder: Path, dim: int, names: Sequence[str]):
        self._path = path
        self._folder = folder
        self._dim = dim
        self._names = list(names)
        self._lock = threading.RLock()
        self._merging: threading.Thread | None = None
        self._masks: dict[tuple[Visible, int, int], Array] = {}
        self._identity: Any = None
        self._set_back: Any = None
        self._era = 0
        self._generation = 0
        self._forget()

    def _forget(self) -> None:
        self._base: Segment = none(self._dim)
        self._tail = Tail(self._dim)
        self._version = -1
        self._looked = -1, -1
        self._groups: dict[tuple[str, ...], int] = {}
        self._present = 0
        self._leftover: set[int] = set()
        self._fragments: frozenset[int] = frozenset()
        self._era += 1
        self._generation += 1
        self._masks.clear()

    # --- following the table --------------------------------------------------------------------

    def at(self, version: int, table_at: Callable[[int], Any]) -> View:
        """The rows of a table version; `table_at` gives a handle fixed to a version, for reading it from nothing."""
        with self._lock:
            identity, set_back = self._identity_of(version), _stamp(self._folder / "set-back")
            known = version == self._version and identity == self._identity
            if set_back != self._set_back or not (known or version > self._version):
                self._forget()
            if self._version < 0:
                self._load(version)
            anew = self._version < 0
            if version > self._version and not self._catch_up(version, table_at):
                self._forget()  # rows are there that were taken for gone: the table was set back to an older version
                self._catch_up(version, table_at)
            self._identity, self._set_back = identity, set_back
            if anew and self._present > MERGE_ROWS:
                self.merge()  # keep it for the next process, which need not read the whole table then
            return View(version, self._generation, self._base, self._tail, self._tail.n)

    def newest(self) -> View | None:
        """The rows that are known, if nobody has committed since."""
        with self._lock:
            if self.latest() != self._version or self._version < 0:
                return None
            return View(self._version, self._generation, self._base, self._tail, self._tail.n)

    def latest(self) -> int | None:
        """The table's newest version, told by names alone: each manifest has the number after the last one's, or the
        table was set back. None where that does not tell. Asking Lance takes a hundred times as long, and as many
        times more as there are versions: it lists them all."""
        with self._lock:
            version = self._version
            known = self._identity_of(version), _stamp(self._folder / "set-back")
            if version < 0 or known != (self._identity, self._set_back):
                return None
            while self._manifest_path(version + 1) is not None:
                version += 1
            return max(version, self._listed())

    def _listed(self) -> int:
        """The newest version when the folder last changed. Versions next to the known one may have been taken away
        while others came after them; that is long ago, so that one commit in the same tick of the clock as the look
        before it, which this would miss, is not what hides the rest."""
        with suppress(OSError):
            at = (self._path / "_versions").stat().st_mtime_ns
            if at != self._looked[0]:
                self._looked = at, max(numbers(self._path), default=-1)
        return self._looked[1]

    def _catch_up(self, version: int, table_at: Callable[[int], Any]) -> bool:
        """Read what came and what went since the version that is known. Following one takes a few milliseconds at
        100,000 rows: only files that are new are looked into, and row numbers are read by Lance's own scanner, as
        lancedb's takes 43 ms for them."""
        import lance  # by those who follow: for the first look at a table lancedb is enough, and it is loaded already

        data = lance.dataset(str(self._path), version=version)
        files = {file.fragment_id: file for file in data.get_fragments()}
        for batch in self._batches_since(data, files) if self._version >= 0 else self._all_batches(table_at(version)):
            self._take(batch)
            if self._version < 0 and self._tail.n > max(AT_ONCE, len(self._base.columns) // 2):
                self._absorb()
                self._leave_nothing_of_a_deleted_table()
        rows = int(data.count_rows())
        if rows == self._present - len(self._leftover):
            self._leftover.clear()
        elif rows != self._present and not self._compare(data, version):
            return False
        self._present, self._version, self._fragments = rows, version, frozenset(files)
        return True

    def _all_batches(self, table: Any) -> Any:
        return table.search().select([*dict.fromkeys((*self._names, *READ))]).with_row_id(True).to_batches()

    def _batches_since(self, data: Any, files: Mapping[int, Any]) -> Any:
        """Rows that came with a commit after the known version. Files put together hold older ones as well."""
        new = [file for number, file in files.items() if number not in self._fragments]
        if not new:
            return ()
        names = [*dict.fromkeys((*self._names, *READ))]
        since = f"_row_last_updated_at_version > {self._version}"
        return data.scanner(columns=names, filter=since, with_row_id=True, fragments=new).to_batches()

    def _take(self, batch: Any) -> None:
        if not batch.num_rows:
            return
        columns = {name: batch.column(name) for name in (*READ, "_rowid")}
        flat = columns["vector"].flatten().to_numpy(zero_copy_only=False)
        vectors = flat.reshape(-1, self._dim)
        small, scales, off = shrunk(vectors)
        versions = columns["_row_last_updated_at_version"].to_numpy(zero_copy_only=False)
        ids, keys = columns["id"].to_pylist(), columns["document_key"].to_pylist()
        texts, access = columns["search_text"].to_pylist(), columns["access"].to_pylist()
        rowids = columns["_rowid"].to_numpy(zero_copy_only=False)
        rows = packed(batch, vectors, self._names)
        self._present += batch.num_rows
        for i in np.argsort(versions, kind="stable"):
            key, created = keys[i].encode(), int(versions[i])
            newest = self._supersede(key, created)
            self._tail.append(
                texts[i],
                rows[i],
                rowids=rowids[i],
                ids=ids[i].encode(),
                keys=key,
                groups=self._groups.setdefault(tuple(sorted(access[i])), len(self._groups)),
                created=created,
                ended=FOREVER if newest == created else newest,
                small=small[i],
                scales=scales[i],
                off=off[i],
            )
            if newest != created:
                self._leftover.add(int(rowids[i]))

    def _supersede(self, key: bytes, created: int) -> int:
        """End the rows of a document that came before `created`; the version its newest rows came with."""
        newest = created
        for columns, rows in self._places(key):
            for row in rows:
                if columns.created[row] < created:
                    if columns.ended[row] == FOREVER:
                        columns.ended[row] = created
                        self._leftover.add(int(columns.rowids[row]))
                elif columns.ended[row] == FOREVER:
                    newest = max(newest, int(columns.created[row]))
        return newest

    def _places(self, key: bytes) -> list[tuple[Any, list[int]]]:
        return [(self._base.columns, self._base.rows_of(key)), (self._tail.columns, self._tail.rows_of(key))]

    def _compare(self, data: Any, version: int) -> bool:
        """End the rows the table no longer has. False when it has rows that are not known or were taken for gone."""
        there = data.scanner(columns=[], with_row_id=True).to_table()["_rowid"].to_numpy()
        self._leftover &= set(there[np.isin(there, np.array(sorted(self._leftover), np.uint64))].tolist())
        known = len(self._leftover)
        for columns in (self._base.columns, self._tail.columns.rows(slice(0, self._tail.n))):
            counts = np.flatnonzero(columns.ended == FOREVER)
            stays = np.isin(columns.rowids[counts], there)
            columns.ended[counts[~stays]] = version
            known += int(np.count_nonzero(stays))
        return known == len(there)

    # --- what a search may see ------------------------------------------------------------------

    def mask(self, view: View, visible: Visible) -> Array:
        """Which rows of a view pass `visible`. The array is shared: it must not be changed."""
        with self._lock:
            key = (visible, view.version, view.generation)
            held = self._masks.get(key)
            if held is not None:
                return held
            groups = list(self._groups)
        mask = (view.column("created") <= view.version) & (view.column("ended") > view.version)
        if visible.labels is not None:
            open_to = np.array([not group or bool(visible.labels & set(group)) for group in groups] or [False])
            mask &= open_to[view.column("groups")]
        if visible.documents is not None:
            mask &= _rows_of(view, visible.documents)
        with self._lock:
            while len(self._masks) >= KEPT_MASKS:
                del self._masks[next(iter(self._masks))]
            self._masks[key] = mask
        return mask

    def rowids_of(self, keys: Collection[str]) -> list[int]:
        """Every row the table may still hold of these documents, and rows of others that no longer count."""
        with self._lock:
            found = set(self._leftover)
            for key in keys:
                for columns, rows in self._places(key.encode()):
                    found.update(int(columns.rowids[row]) for row in rows if columns.ended[row] == FOREVER)
            return sorted(found)

    def ids_of(self, keys: Collection[str] | None) -> set[str]:
        """Ids of the chunks of these documents that count, or of all."""
        with self._lock:
            found: set[str] = set()
            if keys is None:
                for columns in (self._base.columns, self._tail.columns.rows(slice(0, self._tail.n))):
                    found.update(each.decode() for each in columns.ids[columns.ended == FOREVER].tolist())
                return found
            for key in keys:
                for columns, rows in self._places(key.encode()):
                    found.update(columns.ids[row].decode() for row in rows if columns.ended[row] == FOREVER)
            return found

    def superseded(self) -> frozenset[int]:
        """Rows that are still in the table and no longer count."""
        with self._lock:
            return frozenset(self._leftover)

    # --- between processes ----------------------------------------------------------------------

    def wants_merging(self) -> bool:
        with self._lock:
            return self._tail.n > MERGE_ROWS + len(self._base.columns) // MERGE_SHARE

    def merge(self, *, wait: bool = False) -> None:
        """Make a new segment of all rows in a thread of its own, and keep it for other processes."""
        with self._lock:
            if self._merging is None or not self._merging.is_alive():
                self._merging = threading.Thread(target=self._merge, name="factform-merge", daemon=True)
                self._merging.start()
            thread = self._merging
        if wait:
            thread.join()

    def forget(self, *, since: int = -1) -> None:
        """Drop all that is kept, for this and every other process: the table was set back, or must not be told of.
        Segments up to the version `since` stay: a table that is set back to it still holds what they were made of."""
        with self._lock:
            self._forget()
            for path in self._folder.iterdir() if self._folder.is_dir() else ():
                if path.is_dir() and not (path.name.isdigit() and int(path.name) <= since):
                    shutil.rmtree(path, ignore_errors=True)
            for path in self._folder.glob(f"*{packs.SUFFIX}") if since < 0 else ():
                path.unlink(missing_ok=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "set-back").write_bytes(os.urandom(8))

    def kept(self) -> dict[str, bool]:
        """Segments kept for other processes, by the table version they are of, and whether each can be used."""
        found = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return {path.name: load(path) is not None for path in found if path.name.isdigit()}

    def kept_versions(self) -> set[int]:
        """Table versions of which a segment is kept: each is told by its manifest, and useless without it."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return {int(path.name) for path in found if path.name.isdigit()}

    def close(self) -> None:
        """Wait for a segment that is being made."""
        thread = self._merging
        if thread is not None:
            thread.join()

    def _merge(self) -> None:
        with reading(self._path):  # the version it is of stays until the segment names it
            made, about = self._absorb()
            if made is not None and about["manifest"]:
                self._keep(made, about)
        self._leave_nothing_of_a_deleted_table()

    def _leave_nothing_of_a_deleted_table(self) -> None:
        """Whoever deletes a table deletes what is kept of it after that: looked for now, it is seen here or there."""
        if not self._path.is_dir():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _absorb(self) -> tuple[Segment | None, dict[str, Any]]:
        """Put the tail into the segment. Searches and updates go on meanwhile. With what to say of it to others."""
        with self._lock:
            era, base, tail, n = self._era, self._base, self._tail, self._tail.n
            kept = np.concatenate([base.columns.ended, tail.columns.ended[:n]]) == FOREVER
            about = {"version": self._version, "manifest": self._manifest(self._version), "dim": self._dim}
            about |= {"groups": [list(group) for group in self._groups], "leftover": sorted(self._leftover)}
            about["fragments"] = sorted(self._fragments)
        made = merged(base, tail.frozen(n), kept, self._folder)
        with self._lock:
            if self._era != era:
                return None, about
            # What ended while the segment was made did so in the old one.
            made.columns.ended[:] = np.concatenate([base.columns.ended, self._tail.columns.ended[:n]])[kept]
            self._base, self._tail = made, self._tail.after(n)
            self._generation += 1
            self._masks.clear()
        return made, about

    def _keep(self, segment: Segment, about: dict[str, Any]) -> None:
        """Save a segment, unless another process is just doing so. It is derived: a failure costs only time."""
        try:
            if not self._path.is_dir():
                return
            self._folder.mkdir(exist_ok=True)
            handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                name = str(about["version"])
                save(segment, self._folder / name, about)
                named = {name, *(pack.name for pack in segment.packs)}
                for path in self._folder.iterdir():
                    if path.name in named:
                        continue
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    elif path.suffix == packs.SUFFIX:
                        path.unlink(missing_ok=True)
                if not self._path.is_dir():  # deleted meanwhile, perhaps to erase what stands here
                    shutil.rmtree(self._folder, ignore_errors=True)
            finally:
                os.close(handle)
        except OSError:
            return

    def _load(self, version: int) -> None:
        """Start from the newest segment kept by any process that fits the table."""
        for number in sorted(self.kept_versions(), reverse=True):
            kept = load(self._folder / str(number)) if number <= version else None
            if kept is None or kept[1]["dim"] != self._dim or kept[1]["manifest"] != self._manifest(number):
                continue
            self._base, about = kept
            self._leftover = set(about["leftover"])
            self._version, self._present = number, len(self._base.columns) + len(self._leftover)
            self._groups = {tuple(group): i for i, group in enumerate(about["groups"])}
            self._fragments = frozenset(about.get("fragments", ()))  # older ones do not tell: every file is looked into
            return

    def _manifest_path(self, version: int) -> Path | None:
        path = manifest(self._path, version)
        return path if path.is_file() else None

    def _manifest(self, version: int) -> str:
        """Digest of a version's manifest, "" when it is not there: a version number alone may come twice, when a torn
        manifest was put aside."""
        path = self._manifest_path(version)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""

    def _identity_of(self, version: int) -> Any:
        """What tells cheaply that a version is still the one that was read."""
        path = self._manifest_path(version)
        return _stamp(path) if path else None


def packed(batch: Any, vectors: Array, names: Sequence[str]) -> list[bytes]:
    """Rows of the table as bytes: `vectors` [rows, dim] and the columns `names`, in that order."""
    records = batch.select(list(names)).to_pylist()
    return [packs.pack(vector, record) for vector, record in zip(vectors, records, strict=True)]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def _rows_of(view: View, documents: frozenset[str]) -> Array:
    keys = np.array(sorted(document_key(document).encode() for document in documents), "S32")
    base = np.zeros(len(view.base.columns), bool)
    low, high = (np.searchsorted(view.base.sorted_keys, keys, side) for side in ("left", "right"))
    for start, end in zip(low[high > low], high[high > low], strict=True):
        base[view.base.order[start:end]] = True
    return np.concatenate([base, np.isin(view.tail.columns.keys[: view.added], keys)])
