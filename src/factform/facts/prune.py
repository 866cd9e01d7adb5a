"""Old versions of documents, as far as a policy does not keep them: their bytes go, what is known of them stays.

Knows nothing of the records of answers: whoever prunes says which versions they cite. The ledger first notes which
versions go, so that nothing is cited from them any more and a pruning that was interrupted is finished later; then
blobs that no other version needs are deleted and tables of past moments, which makes room for the index to be written
anew without what Lance kept of old rows; last the mark. Every step may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from factform.errors import StoreBusy, StoreError
from factform.facts import blobs
from factform.facts.asof import past_folder
from factform.facts.care import blob_names, check_ledger, named_blobs
from factform.facts.current import CurrentIndex
from factform.facts.disk import bytes_below, failpoint, release_reserve, sync_path
from factform.facts.ledger import Ledger, VersionRow
from factform.facts.rebuild import Rebuilder
from factform.facts.takeout import copy_index, remove, remove_blobs
from factform.ids import canonical_json

MARK = "pruning"
"""Key of the small value that says which rows are being pruned."""

NOT_VERSIONS = ("accepted", "indexed")
"""What is on its way in or current is never pruned."""

Cited = Callable[[], Collection[tuple[str, str]]]
"""The versions, as (document, version), that records of answers cite."""


@dataclass(frozen=True)
class Policy:
    """What is kept of each document beside its current version: its newest `keep_versions` ones, the current one
    counted, and those a search found within the last `keep_days` days. What one of the two keeps the other does not
    prune; 0 says nothing, and without either everything is kept. With `keep_cited` what an answer cites is kept, too.
    """

    keep_versions: int = 0
    keep_days: int = 0
    keep_cited: bool = True

    def __bool__(self) -> bool:
        return self.keep_versions > 0 or self.keep_days > 0


@dataclass(frozen=True)
class PrunedVersion:
    """A version whose bytes were removed, or (with `cited`) kept because a record of an answer cites it."""

    document: str
    version: str
    status: str
    accepted_at: str
    ended_at: str | None
    chunks: int
    cited: bool = False


@dataclass(frozen=True)
class PruneReport:
    """What was pruned, or with `dry_run` would be. `cited` are versions that only records of answers keep; `files` and
    `bytes` stored files deleted, `index_bytes` what the index's folder lost with its old states."""

    dry_run: bool
    keep_versions: int
    keep_days: int
    keep_cited: bool
    versions: tuple[PrunedVersion, ...]
    cited: tuple[PrunedVersion, ...]
    files: int
    bytes: int
    index_bytes: int


def beyond(
    rows: Iterable[VersionRow], policy: Policy, cited: Collection[tuple[str, str]], now: datetime
) -> tuple[list[VersionRow], list[VersionRow]]:
    """The rows that a policy does not keep: those that go, and those that stay because they are `cited`; oldest first.

    An offer that failed counts as the version before it would: it goes when as many versions came after it.
    """
    if not policy:
        return [], []
    since = (now - timedelta(days=policy.keep_days)).astimezone(UTC).isoformat(timespec="milliseconds")
    newer: dict[str, int] = {}
    going: list[VersionRow] = []
    staying: list[VersionRow] = []
    for row in sorted(rows, key=lambda row: -row.seq):
        place = newer.get(row.document, 0)
        newer[row.document] = place + (row.began is not None)
        kept = place < policy.keep_versions or (policy.keep_days > 0 and (row.ended_at or since) >= since)
        if not kept and row.status not in NOT_VERSIONS and row.pruned_at is None:
            (staying if (row.document, row.version) in cited else going).append(row)
    return going[::-1], staying[::-1]


class Pruner:
    """Prunes one store. `writing` holds the writer's place with nothing left open by whoever held it before; `tidy`
    lets go of what was kept of chunks that are gone."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        current: CurrentIndex,
        rebuilder: Rebuilder,
        writing: Callable[[], AbstractContextManager[None]],
        tidy: Callable[[], None],
    ):
        self._folder = folder
        self._ledger = ledger
        self._current = current
        self._rebuilder = rebuilder
        self._writing = writing
        self._tidy = tidy

    def marked(self) -> bool:
        """Whether a pruning was begun and not finished."""
        return self._ledger.get_meta(MARK) is not None

    def foresee(self, policy: Policy, cited: Cited, now: datetime | None = None) -> PruneReport:
        """What `prune` would do now; nothing is changed."""
        rows = self._ledger.versions()
        going, staying = beyond(rows, policy, _cited(policy, cited), now or datetime.now(UTC))
        sizes = [path.stat().st_size for path in self._unneeded(rows, going) if path.exists()] if going else []
        return _report(policy, going, staying, sizes, 0, dry_run=True)

    def prune(self, policy: Policy, cited: Cited, now: datetime | None = None) -> PruneReport:
        """Remove what the policy does not keep. Raises StoreBusy while another process writes or makes the index anew,
        StoreError where the ledger is damaged."""
        if not policy:
            return _report(policy, [], [], [], 0)
        with self._writing():
            self.finish(cited)
            if wrong := [check for check in check_ledger(self._folder) if check.status == "problem"]:
                raise StoreError(f"{wrong[0].message}; run `factform doctor --repair` before anything is pruned")
            going, staying = beyond(self._ledger.versions(), policy, _cited(policy, cited), now or datetime.now(UTC))
            if not going:
                return _report(policy, going, staying, [], 0)
            self._begin(going, policy)
            failpoint("prune_begun")
            return self._finish(policy, cited, staying)

    def finish(self, cited: Cited) -> PruneReport | None:
        """Finish a pruning that was interrupted; None where there is none."""
        with self._writing():
            found = self._ledger.get_meta(MARK)
            if found is None:
                return None
            return self._finish(Policy(**json.loads(found)["policy"]), cited, [])

    def _begin(self, going: Sequence[VersionRow], policy: Policy) -> None:
        self._check_alone()
        told = {"seqs": [row.seq for row in going], "policy": vars(policy)}
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        seqs, marks = [row.seq for row in going], {MARK: canonical_json(told)}
        try:
            self._ledger.set_pruned(seqs, at, marks)
        except StoreError:
            if not release_reserve(self._folder):  # on a full disk this is what makes room
                raise
            self._ledger.set_pruned(seqs, at, marks)

    def _check_alone(self) -> None:
        """It would have to begin again from nothing."""
        if (status := self._rebuilder.status()) and status["running"]:
            raise StoreBusy(
                "the index is being made anew in the background; prune when that is done (`factform index status`)"
            )

    def _finish(self, policy: Policy, cited: Cited, staying: Sequence[VersionRow]) -> PruneReport:
        self._check_alone()
        rows = {row.seq: row for row in self._ledger.versions()}
        going = [rows[seq] for seq in json.loads(self._ledger.get_meta(MARK) or "")["seqs"] if seq in rows]
        if back := self._cited_since(going, _cited(policy, cited)):
            self._ledger.set_pruned([row.seq for row in back], None, {})
            staying, going = [*staying, *back], [row for row in going if row not in back]
        before = bytes_below(self._folder / "index")
        self._rebuilder.give_up()  # one that nobody is at: what it has made may hold or name what goes
        sizes = remove_blobs(self._folder / "blobs", self._unneeded_names(self._ledger.versions()))
        failpoint("prune_blobs_gone")
        if (past := past_folder(self._folder)).is_dir():
            remove(past)
            sync_path(past.parent)
        failpoint("prune_past_gone")
        if any(row.chunks for row in going):
            copy_index(self._folder, self._ledger, self._current, self._rebuilder, ())
        failpoint("prune_index_written")
        self._tidy()
        self._ledger.forget_meta(MARK)
        failpoint("prune_finished")
        return _report(policy, going, staying, sizes, before - bytes_below(self._folder / "index"))

    def _cited_since(self, going: Sequence[VersionRow], cited: Collection[tuple[str, str]]) -> list[VersionRow]:
        """What an answer cites that was written while it was decided what goes, where the bytes are still there."""
        there = set(blob_names(self._folder / "blobs"))
        found = [row for row in going if (row.document, row.version) in cited]
        return [row for row in found if named_blobs([replace(row, pruned_at=None)]) <= there]

    def _unneeded(self, rows: Sequence[VersionRow], going: Sequence[VersionRow]) -> list[Path]:
        gone = {row.seq for row in going}
        names = self._unneeded_names([row for row in rows if row.seq not in gone])
        return [blobs.blob_path(self._folder / "blobs", name) for name in sorted(names)]

    def _unneeded_names(self, kept: Sequence[VersionRow]) -> set[str]:
        """Blobs that are there and that no version needs; what an interrupted add has left among them."""
        return set(blob_names(self._folder / "blobs")) - named_blobs(kept)


def _cited(policy: Policy, cited: Cited) -> Collection[tuple[str, str]]:
    return cited() if policy and policy.keep_cited else ()


def _report(
    policy: Policy,
    going: Sequence[VersionRow],
    staying: Sequence[VersionRow],
    sizes: Sequence[int],
    index_bytes: int,
    *,
    dry_run: bool = False,
) -> PruneReport:
    told = [tuple(_told(row, cited) for row in rows) for rows, cited in ((going, False), (staying, True))]
    return PruneReport(
        dry_run=dry_run,
        keep_versions=policy.keep_versions,
        keep_days=policy.keep_days,
        keep_cited=policy.keep_cited,
        versions=told[0],
        cited=told[1],
        files=len(sizes),
        bytes=sum(sizes),
        index_bytes=index_bytes,
    )


def _told(row: VersionRow, cited: bool) -> PrunedVersion:
    return PrunedVersion(row.document, row.version, row.status, row.accepted_at, row.ended_at, row.chunks, cited)
