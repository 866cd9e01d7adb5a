"""The files of an index's table: forced to stable storage, told by their checksums, taken away when nobody needs them,
and what goes wrong with them in our words.

Knows nothing of rows or searches. Lance does not fsync: this module does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from factform.errors import StoreError
from factform.facts.disk import advice, errno_in, failpoint, fsync_path, refused
from factform.facts.listing import Listing
from factform.facts.sums import Sums
from factform.facts.tableversions import alone, take_away, unneeded

PANICS = ("RustPanic", "PanicException")
"""Names of what comes out of Lance's own faults; the classes cannot be imported."""

ENDINGS = {".lance": b"LANC", ".manifest": b"LANC", ".arrow": b"ARROW1"}
"""Last bytes of the files that have such."""


AFTER_FAILURE_S = 3600.0
"""Seconds until old versions are looked at again where they could not be deleted: one that cannot be read stays so."""


class Refused(StoreError):
    """The disk or the system refused; what the index holds is not to blame."""


class TableFiles:
    """The files of the table `name` in `folder`. With `opened` those that are there are somebody else's concern."""

    def __init__(self, folder: Path, name: str, *, opened: bool = False):
        self.folder = folder
        self.path = folder / f"{name}.lance"
        self.sums = Sums(folder / f"{name}.sums", self.path)
        self._listing = Listing(self.path)
        self._not_durable: set[str] = set()
        self._noted = False
        self._rests_until = 0.0
        if opened:
            self._listing.changes()  # whether these are on disk for good is for whoever opens a table to say

    def sync(self, *, everything: bool = False) -> None:
        """Force every file written since the last call, and the folders that name them, to stable storage.

        Lance's files never change once written, so new names are all there is to look for. `everything` takes no
        file for durable that was there when the table was opened.
        """
        if everything:
            self._listing = Listing(self.path)
        came, went = self._listing.changes()
        # What could not be forced to disk last time is still to be.
        new = self._not_durable = (self._not_durable | came) - went
        for name in sorted(new):
            if not self._whole(name):
                raise Refused(f"{name} was not written whole, and nobody was told; {advice(None)}")
        self._force(new)
        self._not_durable = set()
        if self._noted and not everything and self.sums.path.exists():
            self.sums.change(new, went)
            return
        present = set(index_files(self.path))
        # Left by somebody who died, perhaps before it was on disk: where a power cut takes a file and leaves its
        # checksum, that tells of a loss which is none.
        self._force(self.sums.unlisted(present) - new)
        self.sums.note(present)
        self._noted = True
        if self.sums.tidying():
            with suppress(OSError):  # somebody died over it; what they deleted is noted now
                self.sums.end_tidying()

    def _whole(self, name: str) -> bool:
        with self._forced():
            return whole(Path(name))

    def _force(self, names: Collection[str]) -> None:
        """fsync files, and the folders that name them."""
        with self._forced():
            for name in sorted(names):
                fsync_path(Path(name))
            for folder in sorted({parent for name in names for parent in _folders(Path(name), self.folder)}):
                fsync_path(folder)

    @contextmanager
    def _forced(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Refused(str(refused(f"the index in {self.folder} cannot be forced to disk", error))) from error

    def forget_versions(self, newest: int, keep: Collection[int]) -> None:
        """Delete versions that nobody needs any more, when there are many: older than `newest`, which is on disk for
        good, and none of `keep`. Nothing fails by this: where it cannot be done, it is tried again after a while."""
        if time.monotonic() < self._rests_until:
            return
        try:
            if old := unneeded(self.path, keep):
                with alone(self.path) as free:
                    if free:
                        self._take_away(newest, old)
        except (OSError, StoreError):
            self._rests_until = time.monotonic() + AFTER_FAILURE_S

    def _take_away(self, newest: int, versions: Sequence[int]) -> None:
        self.sums.begin_tidying()
        failpoint("tidying_begun")
        try:
            with translated(self.folder, "tidied"):
                take_away(self.path, newest, versions)
        finally:
            failpoint("versions_gone")
            self.sync()
            self.sums.end_tidying()


def index_files(path: Path) -> Iterator[str]:
    for folder, _, names in os.walk(path):
        for name in names:
            yield f"{folder}/{name}"


def _folders(path: Path, top: Path) -> Iterator[Path]:
    """Folders from that of `path` up to and including `top`: a new folder's name lives in its parent."""
    for parent in path.parents:
        yield parent
        if parent == top:
            return


def whole(path: Path) -> bool:
    """Whether a file of the table ends as it should. Raises OSError when it cannot be read.

    Lance loses the error of a file's last write: the file is cut short on a full disk, and the commit goes on.
    """
    magic = ENDINGS.get(path.suffix, b"")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - len(magic)))
        return size > 0 and file.read(len(magic)) == magic


@contextmanager
def translated(folder: Path, done: str) -> Iterator[None]:
    """Lance raises ValueError, OSError and RuntimeError, with its own source lines in the message. On damaged bytes it
    may panic, which is none of them."""
    try:
        yield
    except BaseException as error:
        known = isinstance(error, ValueError | OSError | RuntimeError | pa.ArrowException)
        if not known and type(error).__name__ not in PANICS:
            raise
        reason = str(error).split(", /")[0].strip()
        number = errno_in(f"os error {error.errno}" if isinstance(error, OSError) else str(error))
        if number is None:
            number = errno_in(str(error))
        if number is not None:
            raise Refused(f"the index in {folder} cannot be {done}: {reason[:300]}; {advice(number)}") from error
        raise StoreError(
            f"the index in {folder} cannot be {done}: {reason[:300]}; run `factform index rebuild`"
        ) from error
