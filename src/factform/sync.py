"""Make the documents of a folder equal to the folder: what is new, changed, renamed or gone there is so here.

Knows nothing of how documents are stored or files watched. The bytes are the truth; size, times and inode only save
reading what most probably is the same. Ids are where a file stands, so a renamed file is a new document with the old
one's labels, and both keep their history.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from factform.errors import DocumentError, StoreError, SyncRefused
from factform.facts.origins import SyncedFile
from factform.ids import SETTLED, sha256, version_id
from factform.records import Action, Change, Receipt, Source
from factform.sources import KEEP, KNOWN_SUFFIXES, Labels, Listed, State, is_lock, read_file, walk

if TYPE_CHECKING:
    from factform.facts.store import DataLayer, DocumentInfo

GUARD_OVER = 10
"""A sync that would remove more than this many documents, and more than half of the folder's, wants to be told so."""

AT_ONCE = 1000
"""Files taken in before it is noted how they looked: an interrupted sync reads no more than these once more."""

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Folder:
    """A folder to be synced. `root` is what the ledger knows it by, `id_of` gives a file's document id."""

    path: Path
    root: str
    id_of: Callable[[Path], str]
    max_bytes: int


@dataclass(frozen=True)
class Seen:
    """A file that is there."""

    document: str
    relative: str
    path: Path
    state: State


@dataclass(frozen=True)
class Taking:
    """A file to be read and taken in."""

    seen: Seen
    labels: Labels
    known: DocumentInfo | None
    renamed_from: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be done. `claims` are documents that will belong to the folder, `released` those that no more do."""

    unchanged: tuple[Change, ...]
    taking: tuple[Taking, ...]
    removing: tuple[str, ...]
    failed: tuple[Change, ...]
    claims: tuple[SyncedFile, ...]
    released: tuple[str, ...]


@dataclass
class Sync:
    """One sync of `folder` into `facts`; `add` and `remove` are the project's, which keep all else in step.

    `labels` hold for all documents of the folder from now on, where they say anything.
    """

    folder: Folder
    facts: DataLayer
    add: Callable[[Iterable[Source | Receipt], int], list[Receipt]]
    remove: Callable[[Sequence[str]], list[Receipt]]
    labels: Labels = KEEP
    force: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def plan(self, scope: Collection[Path] | None = None) -> Plan:
        """What has to be done, for the files at or below the paths of `scope`, or all.

        Raises SyncRefused when the folder is not there or most of its documents would be removed, unless `force`.
        """
        self._check_folder()
        origins = self.facts.origins
        labels = self.labels.over(Labels(*origins.labels(self.folder.root)))
        entries = origins.synced(self.folder.root)
        files, problems = self._look(scope)
        covered = _covers(self.folder.path, scope, [problem.path for problem in problems])
        held = self._held(None if scope is None else {*files, *(d for d, e in entries.items() if covered(e.path))})
        unchanged, taking = [], []
        for seen in files.values():
            info, entry = held.get(seen.document), entries.get(seen.document)
            wanted = labels.over(_labels(info))
            if (
                info
                and entry
                and entry.sha256 == info.sha256
                and trusted(entry, seen.state)
                and _labels(info) == wanted
            ):
                unchanged.append(_unchanged(info))
            else:
                taking.append(Taking(seen, wanted, info))
        gone = [d for d, entry in sorted(entries.items()) if d not in files and covered(entry.path)]
        here = [document for document in gone if document in held]
        taking = self._renames(taking, [held[document] for document in here], labels, entries)
        renamed = {item.renamed_from for item in taking}
        removing = [document for document in here if document not in renamed]
        self._guard(removing, entries)
        return Plan(
            tuple(unchanged),
            tuple(taking),
            tuple(removing),
            tuple(Change("failed", problem.path, error=problem.problem) for problem in problems),
            tuple(_claim(item) for item in taking if item.seen.document not in entries and _sayable(item)),
            tuple(document for document in gone if document not in held),
        )

    def foresee(self, plan: Plan) -> list[Change]:
        """What carrying `plan` out would do, as far as can be told without parsing anything."""
        changes = [*plan.unchanged, *plan.failed]
        for item in plan.taking:
            try:
                source, _ = read_file(item.seen.path, item.seen.document, self.folder.max_bytes)
            except DocumentError as error:
                changes.append(Change("failed", item.seen.document, error=str(error)))
                continue
            digest, known = sha256(source.data), item.known
            same = known is not None and known.sha256 == digest and _labels(known) == item.labels
            action: Action = "rename" if item.renamed_from else "unchanged" if same else "update" if known else "add"
            changes.append(Change(action, item.seen.document, item.renamed_from, version_id(source.data), digest))
        changes += [Change("remove", document) for document in plan.removing]
        return sorted(changes, key=lambda change: change.document)

    def carry_out(self, plan: Plan) -> list[Change]:
        """Do what `plan` says. First in, then out: a crash between the two leaves too much, never too little."""
        origins, root = self.facts.origins, self.folder.root
        if self.labels != KEEP:
            merged = self.labels.over(Labels(*origins.labels(root)))
            origins.set_labels(root, merged.access, merged.metadata)
        if plan.claims:
            origins.note(root, plan.claims)
        changes = [*plan.unchanged, *plan.failed]
        left = iter(plan.taking)
        while not self.stop.is_set() and (few := list(islice(left, AT_ONCE))):
            changes += self._take(few)
        if not self.stop.is_set():
            done = {change.renamed_from for change in changes if change.action == "rename"}
            changes += self._out(plan, [item for item in done if item])
        return sorted(changes, key=lambda change: change.document)

    # --- looking --------------------------------------------------------------------------------

    def _check_folder(self) -> None:
        path, known = self.folder.path, self.facts.origins.synced(self.folder.root)
        if self.force:
            return
        if not os.path.isdir(path):  # noqa: PTH112  where one may not look there is nothing to see, and it stays
            what = f"{path} is not a folder" if os.path.lexists(path) else f"the folder {path} is not there"
            raise SyncRefused(f"{what}; its {len(known)} documents stay. --force removes them")
        if len(known) > 1 and _is_empty(path):
            raise SyncRefused(
                f"the folder {path} is empty, as when a disk is not mounted; its {len(known)} documents stay. "
                "--force removes them"
            )

    def _look(self, scope: Collection[Path] | None) -> tuple[dict[str, Seen], list[Listed]]:
        """The files that are there, by document, and the folders that could not be listed."""
        files: dict[str, Seen] = {}
        problems = []
        for listed in _listed(self.folder.path, scope):
            if listed.problem:
                problems.append(listed)
                continue
            try:
                state = State.of(Path(listed.path).stat())
            except OSError:  # gone meanwhile, or a link to nowhere
                continue
            path = Path(listed.path)
            document = self.folder.id_of(path)
            files[document] = Seen(document, path.relative_to(self.folder.path).as_posix(), path, state)
        return files, problems

    def _held(self, documents: Collection[str] | None) -> dict[str, DocumentInfo]:
        """What the store has, of `documents` or of all."""
        if documents is None:
            return {info.document: info for info in self.facts.documents()}
        found = (self.facts.document(document) for document in documents)
        return {info.document: info for info in found if info is not None}

    def _renames(
        self,
        taking: Sequence[Taking],
        gone: Sequence[DocumentInfo],
        labels: Labels,
        entries: Mapping[str, SyncedFile],
    ) -> list[Taking]:
        """New files with the bytes of a document that is gone are that document under another name.

        One moved over a file that was there before stays the latter's document, but what it says now is under the
        labels of where it stood: it must not be opened to everybody by being moved.
        """
        sizes = {entries[info.document].size for info in gone}
        left = list(gone)
        found = []
        for item in taking:
            size = item.seen.state.size
            old = None
            if left and (size in sizes or -1 in sizes):
                old = self._same_bytes(item, left)
            if old is None:
                found.append(item)
                continue
            if item.known is not None:
                moved = old.access and item.known.sha256 != old.sha256
                found.append(replace(item, labels=labels.over(_labels(old))) if moved else item)
                continue
            left.remove(old)
            found.append(Taking(item.seen, labels.over(_labels(old)), None, old.document))
        return found

    def _same_bytes(self, item: Taking, gone: Sequence[DocumentInfo]) -> DocumentInfo | None:
        """The document with the bytes of this file; one whose file had the same name before any other."""
        try:
            source, _ = read_file(item.seen.path, item.seen.document, self.folder.max_bytes)
        except DocumentError:
            return None
        digest = sha256(source.data)
        same = [info for info in gone if info.sha256 == digest]
        return min(same, key=lambda info: (info.name != source.name, info.document), default=None)

    def _guard(self, removing: Sequence[str], entries: Mapping[str, SyncedFile]) -> None:
        if not self.force and len(removing) > GUARD_OVER and 2 * len(removing) > len(entries):
            raise SyncRefused(
                f"{len(removing)} of the {len(entries)} documents of {self.folder.path} would be removed, more than "
                f"half, for instance {removing[0]!r}; nothing was changed. If that is meant: --force"
            )

    # --- doing ----------------------------------------------------------------------------------

    def _take(self, few: Sequence[Taking]) -> list[Change]:
        """Read some files and take them in; then note how each looked when it had the bytes taken in."""
        looked: dict[str, SyncedFile] = {}
        receipts = self.add(self._sources(few, looked), len(few))
        fine = [receipt for receipt in receipts if receipt.status != "failed"]
        self.facts.origins.note(self.folder.root, [looked[receipt.document] for receipt in fine])
        self._tighten(few, {receipt.document for receipt in receipts if receipt.status == "failed"})
        renamed = {item.seen.document: item.renamed_from for item in few}
        return [_change(receipt, renamed[receipt.document]) for receipt in receipts]

    def _tighten(self, few: Sequence[Taking], failed: Collection[str]) -> None:
        """The labels of the folder hold for what is searched of a file, too, where its newest bytes were refused."""
        for item in few:
            if item.seen.document in failed and item.known is not None and _labels(item.known) != item.labels:
                with suppress(StoreError):  # damaged: nothing of it is found anyway
                    source = self.facts.source_of(item.known.document, item.known.version)
                    self.add([item.labels.on(source)], 1)

    def _sources(self, few: Sequence[Taking], looked: dict[str, SyncedFile]) -> Iterator[Source | Receipt]:
        for item in few:
            if self.stop.is_set():
                return
            seen, now = item.seen, time.time_ns()
            try:
                source, state = read_file(seen.path, seen.document, self.folder.max_bytes)
            except DocumentError as error:
                if os.path.lexists(seen.path):  # a file that went meanwhile is the next sync's business
                    yield Receipt(seen.document, None, None, 0, "failed", error=str(error))
                continue
            looked[seen.document] = SyncedFile(
                *(seen.document, seen.relative, sha256(source.data)),
                *(state.size, state.mtime_ns, state.ctime_ns, state.inode, now),
            )
            yield item.labels.on(source)

    def _out(self, plan: Plan, renamed: Sequence[str]) -> list[Change]:
        going = [*plan.removing, *renamed]
        changes = []
        if going:
            for receipt in self.remove(going):
                if receipt.document in plan.removing and receipt.status == "removed":
                    changes.append(Change("remove", receipt.document, None, receipt.version, receipt.sha256))
        if going or plan.released:
            self.facts.origins.release(self.folder.root, [*going, *plan.released])
        return changes


def trusted(entry: SyncedFile, state: State) -> bool:
    """Whether a file that looks as it did has the bytes it had.

    One that was changed within SETTLED seconds of being read may have been changed once more since, at a time that a
    coarse clock gives the same number.
    """
    same = (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode) == (
        *(state.size, state.mtime_ns, state.ctime_ns, state.inode),
    )
    return same and max(state.mtime_ns, state.ctime_ns) + int(SETTLED * _SECOND_NS) < entry.read_ns


def _is_empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:  # walking it will say why
        return False


def _listed(top: Path, scope: Collection[Path] | None) -> Iterator[Listed]:
    if scope is None or top in scope:
        if os.path.isdir(top):  # noqa: PTH112
            yield from walk(top)
        return
    for path in sorted(scope):
        parts = path.relative_to(top).parts
        if any(part.startswith(".") or is_lock(part) for part in parts):
            continue
        # `Path` raises where one may not look; a file that cannot be read must not end the watching of others.
        if os.path.isdir(path) and not path.is_symlink():  # noqa: PTH112
            yield from walk(path)
        elif path.name.lower().endswith(KNOWN_SUFFIXES) and os.path.isfile(path):  # noqa: PTH113
            yield Listed(str(path))


def _covers(top: Path, scope: Collection[Path] | None, unlisted: Sequence[str]) -> Callable[[str], bool]:
    """Whether this sync can say that the file at a path (relative to `top`) is gone: it looked there, and could."""
    looked = None if scope is None or top in scope else {path.relative_to(top).as_posix() for path in scope}
    blind = {Path(path).relative_to(top).as_posix() for path in unlisted}

    def covered(relative: str) -> bool:
        at_or_above = {relative, *(parent.as_posix() for parent in Path(relative).parents)}
        return (looked is None or bool(at_or_above & looked)) and not at_or_above & blind

    return covered


def _labels(info: DocumentInfo | None) -> Labels:
    return Labels(tuple(info.access), dict(info.metadata)) if info else Labels((), {})


def _claim(item: Taking) -> SyncedFile:
    return SyncedFile(item.seen.document, item.seen.relative)


def _sayable(item: Taking) -> bool:
    """Whether the file's name can be written down at all; if not, its receipt will say so."""
    try:
        return bool(item.seen.document.encode() and item.seen.relative.encode())
    except UnicodeEncodeError:
        return False


def _unchanged(info: DocumentInfo) -> Change:
    return Change("unchanged", info.document, None, info.version, info.sha256, info.chunks, note=info.note)


def _change(receipt: Receipt, renamed_from: str | None) -> Change:
    actions: dict[str, Action] = {"created": "add", "updated": "update", "unchanged": "unchanged", "failed": "failed"}
    action = actions[receipt.status]
    renamed = renamed_from if action != "failed" else None
    return Change(
        "rename" if renamed else action,
        receipt.document,
        renamed,
        *(receipt.version, receipt.sha256, receipt.chunks, receipt.visible_ms, receipt.error, receipt.note),
    )
