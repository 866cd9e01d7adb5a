"""Bytes taken out of a store for good: an index without some rows, blobs, folders. What erasing and pruning share.

Knows nothing of why they go, nor of what is noted about it: whoever calls this has noted what goes in the ledger, so
that it is done again after a crash. Every step may be repeated; none passes over what a refusing disk left.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np

from factform.errors import StoreError
from factform.facts import blobs
from factform.facts.current import CurrentIndex
from factform.facts.disk import failpoint, refused, sync_path
from factform.facts.ledger import Ledger
from factform.facts.rebuild import Rebuilder
from factform.facts.rows import Row
from factform.facts.tablefiles import Refused

BATCH = 2_000


def copy_index(
    folder: Path, ledger: Ledger, current: CurrentIndex, rebuilder: Rebuilder, documents: Collection[str]
) -> None:
    """All rows that count, those of `documents` apart, into a new table, vectors and all; every other table is deleted:
    Lance keeps deleted rows, old versions and transactions. Nobody else may be making a table meanwhile."""
    if ledger.get_meta("table") is None:
        return
    try:
        old = current.get()
        index = current.create_next()
        seqs = {row.document: row.seq for row in ledger.all_current()}
        batch: list[Row] = []
        vectors = []
        for row, _, vector in old.scan():
            # A replaced document's old rows may still be there; all of a new table's rows would count.
            if row.chunk.document not in documents and seqs.get(row.chunk.document) == row.seq:
                batch.append(row)
                vectors.append(vector)
            if len(batch) == BATCH:
                index.append(batch, np.stack(vectors))
                batch, vectors = [], []
        if batch:
            index.append(batch, np.stack(vectors))
        index.optimize()
        failpoint("erase_index_copied")
        index.sync()
        failpoint("erase_index_synced")
        current.use(index)
        old.close()  # or a segment it is just making would be kept behind our back
        failpoint("erase_index_switched")
    except Refused:
        raise
    except StoreError:
        rebuilder.run(
            None, background=False
        )  # an index that cannot be read is made anew from the documents that are left
    _remove_old_index(folder / "index", ledger.get_meta("table") or "")
    failpoint("erase_index_gone")


def _remove_old_index(folder: Path, keep: str) -> None:
    """Everything in the index's folder that is not of the table `keep`, whatever a crash has left there of others:
    words of a table whose rows are gone already, what was moved aside."""
    for path in folder.iterdir():
        if path.name.partition(".")[0] != keep:
            remove(path)
    sync_path(folder)


def remove_blobs(store: Path, digests: Collection[str]) -> list[int]:
    """Delete blobs, and half-written files; the sizes of those that were there."""
    sizes = []
    for digest in sorted(digests):
        path = blobs.blob_path(store, digest)
        if path.exists():
            sizes.append(path.stat().st_size)
            remove(path)
            failpoint("erase_blob_gone")
        if path.parent.is_dir():  # also where it is gone already: whoever took it away may have died before this
            sync_path(path.parent)
    for path in (store / "tmp").glob("*"):
        remove(path)
    if (store / "tmp").is_dir():
        sync_path(store / "tmp")
    return sizes


def remove(path: Path) -> None:
    """Delete a file or a folder, which may be gone already. Raises StoreError where it stays: what is to be erased must
    not be passed over."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return  # another process takes the same away: a segment's older copies
    except OSError as error:
        raise refused(f"{path} cannot be deleted", error) from error
