"""The verbs of whoever looks after a project: examine it, mend it.

Knows nothing of answers or of what a document says. Everything is looked at, also where parts of it cannot be opened.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factform.documents import Documents
from factform.errors import BehaviorError, FactformError, RecordError, StoreBusy, StoreError
from factform.records import as_json

if TYPE_CHECKING:
    from factform.facts.care import Check, Place
    from factform.facts.care_repair import Action
    from factform.facts.prune import PruneReport
    from factform.facts.store import DataLayer


CACHES = ("kv/blocks", "cache", "training", "reports", "quarantine")
"""Folders of `.factform` that may hold words of any document and can be made again, or are damaged copies."""

STEPS = ("index", "blobs", "records", "caches", "ledger", "free pages")
"""Steps of an erasure, in order."""

UNREACHED = (
    "backups made before, wherever they are",
    "snapshots of the file system, and what a disk keeps of files that were deleted (encrypt the disk to be sure)",
    "answers, exports and reports that left the project",
)
"""What no erasure inside a project can reach."""


@dataclass(frozen=True)
class ErasureReport:
    """What an erasure removed, and what it could not reach. A token stands in the ledger for each document."""

    documents: tuple[str, ...]
    tokens: tuple[str, ...]
    versions: int
    files: int
    bytes: int
    shared: int
    unnamed: int
    records_erased: int
    records_shortened: int
    folders: tuple[str, ...]
    not_reached: tuple[str, ...]


class Care(Documents):
    """A project's health."""

    def erase(self, documents: Sequence[str]) -> ErasureReport:
        """Take documents out with every byte that was made of them, in all versions; it cannot be undone.

        Raises NotFound, before anything is changed, for one that never was there. Interrupted, it is finished when the
        project's documents are next opened.
        """
        eraser = self.facts.eraser()
        with eraser.writing():
            eraser.begin(list(dict.fromkeys(documents)))
            self.encoded.give_up(documents)
            return self._finish_erasure(self.facts)

    def prune(self, *, dry_run: bool = False) -> PruneReport:
        """Remove the bytes of old versions that `facts.keep_versions` and `facts.keep_days` do not keep.

        What is known of them stays. Nothing goes that is current, nor (unless `facts.keep_cited` is false) what an
        answer cites. `dry_run` only says which.

        Raises RecordError where a damaged record may cite anything, StoreBusy. Interrupted, it is finished when the
        project's documents are next opened.
        """
        from factform.facts.prune import Policy

        section, facts = self.settings.facts, self.facts
        policy = Policy(section.keep_versions, section.keep_days, section.keep_cited)
        if dry_run:
            return facts.pruner().foresee(policy, self._cited)
        report = facts.pruner().prune(policy, self._cited)
        if report.versions:
            self._forget_encoded(facts)
        return report

    def _cited(self) -> Collection[tuple[str, str]]:
        return self.audit.cited() if (self.state / "audit.db").exists() else ()

    def _forget_encoded(self, facts: DataLayer) -> None:
        """What was computed of a private text is as private as the text."""
        self.encoded.clear()
        facts.forget_memory()

    resumed: ErasureReport | None = None
    """What an erasure that was interrupted came to, which was finished when the documents were opened."""
    not_erased: str = ""
    """Why an erasure that was interrupted could not be finished when the documents were opened."""

    not_pruned: str = ""
    """Why a pruning that was interrupted could not be finished when the documents were opened."""

    @cached_property
    def facts(self) -> DataLayer:
        """The data layer. An erasure or a pruning that was interrupted is finished first, unless another process writes
        just now. Where the disk refuses, what it names stays hidden, and the rest can be read: `not_erased` and
        `not_pruned` say why."""
        facts = self.open_facts(for_rebuild=False)
        try:
            if facts.eraser().marked() is not None:
                with facts.eraser().writing():
                    self.resumed = self._finish_erasure(facts)
        except StoreBusy:
            pass
        except (StoreError, RecordError) as error:
            self.not_erased = str(error)
        except BaseException:
            facts.close()
            raise
        self._finish_pruning(facts)
        return facts

    def _finish_pruning(self, facts: DataLayer) -> None:
        try:
            if facts.pruner().marked():
                facts.pruner().finish(self._cited)
                self._forget_encoded(facts)
        except StoreBusy:
            pass
        except (StoreError, RecordError) as error:
            self.not_pruned = str(error)
        except BaseException:
            facts.close()
            raise

    def _finish_erasure(self, facts: DataLayer) -> ErasureReport:
        try:
            return self._erased(facts)
        except (StoreError, RecordError) as error:
            raise StoreError(f"{error}. The documents are hidden; the next opening goes on erasing them") from error

    def _erased(self, facts: DataLayer) -> ErasureReport:
        from factform.facts.disk import failpoint
        from factform.facts.erase import clear_folders

        eraser = facts.eraser()
        sources = [row.document for row in eraser.rows() if self._is_there(row.document)]
        adapters = self._adapters_since([row.accepted_at for row in eraser.rows()])
        examples = self._examples_naming(set(eraser.marked() or ()))
        erased = eraser.erase_bytes(self._erasing)
        self._erasing("records")
        whole, part = self.audit.erase(erased.documents, erased.names) if erased.documents else (0, 0)
        failpoint("erase_records_gone")
        self._erasing("caches")
        self._forget_encoded(facts)
        folders = clear_folders(self.state, CACHES)
        tokens = eraser.forget(self._erasing)
        # Once more, for what was being answered meanwhile: from here on a record fails for want of the document.
        self._forget_encoded(facts)
        late = self.audit.erase(erased.documents, erased.names) if erased.documents else (0, 0)
        whole, part = whole + late[0], part + late[1]
        told = [f"{name}: the file it came from is still there" for name in dict.fromkeys(sources)]
        told += [
            f"adapter {name} was tuned while it was there: tune again if it may have learnt from it"
            for name in adapters
        ]
        told += [f"{name}: examples or cases name it" for name in examples]
        return ErasureReport(
            documents=erased.documents,
            tokens=tokens,
            versions=erased.versions,
            files=erased.files,
            bytes=erased.bytes,
            shared=erased.shared,
            unnamed=erased.unnamed,
            records_erased=whole,
            records_shortened=part,
            folders=tuple(folders),
            not_reached=(*told, *UNREACHED),
        )

    def _is_there(self, document: str) -> bool:
        """Whether the file a document came from is still there, as far as one may look."""
        return os.path.isfile(self.folder / self.settings.facts.root / document)  # noqa: PTH113  is_file would raise

    def _erasing(self, step: str) -> None:
        self.report("erase", STEPS.index(step), len(STEPS), step)

    def _adapters_since(self, accepted: Sequence[str]) -> list[str]:
        """Adapters registered after the first of these moments."""
        from factform.form import registry

        with suppress(FactformError):
            infos = registry.list_adapters(self.adapters_folder)
            return [info.name for info in infos if accepted and info.created >= min(accepted)[:19]]
        return []

    def _examples_naming(self, documents: set[str]) -> list[str]:
        """Files of behaviors in which one of the documents is named; they are the user's, so they are left alone."""
        found = []
        for path in sorted((self.folder / "behaviors").glob("*/*.jsonl")):
            try:
                text = path.read_text("utf-8", "replace")
            except OSError as error:
                found.append(f"{path.relative_to(self.folder).as_posix()} (it cannot be read: {error.strerror})")
                continue
            if any(json.dumps(document) in text or document in text for document in documents):
                found.append(path.relative_to(self.folder).as_posix())
        return found

    def doctor(self, *, quick: bool = False, repair: bool = False) -> dict[str, Any]:
        """What a person who looks after the project wants to know; `problems` is empty when all is well.

        `quick` leaves out what reads every byte. `repair` first mends what can be mended. Raises StoreBusy while
        another process writes, StoreError where the ledger and its second copy are both damaged.
        """
        repaired = self.repaired() if repair else []
        checks = self.examined(quick=quick)
        broken = any(check.status == "problem" and check.name in ("ledger", "index") for check in checks)
        return {
            "problems": told(checks),
            "checks": as_json(checks),
            "repaired": as_json(repaired),
            "facts": None if broken else self.facts.status(),
            "evidence": self.evidence.digest if self.evidence else None,
            "adapters": next(check.count for check in checks if check.name == "adapters"),
            "behaviors": self._behavior_names(),
            "kv": None if self.settings.model.url else self.encoded.report(),
            "machine": machine(),
        }

    def examined(self, *, quick: bool = False) -> list[Check]:
        """Every check of the store, the records, the adapters and the behaviors; nothing is changed."""
        from factform.facts.care import examine

        self._close_facts()
        checks = examine(self._place(), quick=quick, progress=self._progress("check"))
        return [
            *checks,
            audit_check(self.state / "audit.db"),
            adapters_check(self.adapters_folder),
            behaviors_check(self.folder / "behaviors", self._behavior_names()),
        ]

    def repaired(self) -> list[Action]:
        """Mend what can be mended and say what was; what is left is told by `examined`."""
        from factform.facts.care import examine
        from factform.facts.care_repair import Action, needs_index, repair_truth, source_bytes
        from factform.facts.sandbox import Sandbox

        self._close_facts()
        place, progress = self._place(), self._progress("repair")
        root, most = self.folder / self.settings.facts.root, self.settings.facts.max_file_mb << 20
        with closing(Sandbox(self.parsing())) as sandbox:
            done = repair_truth(place, lambda row: source_bytes(root, row, most), sandbox.parse, progress)
        if needs_index(examine(place, quick=False, progress=progress)):
            report = self.rebuild_index()
            done.append(Action(f"the index was made anew: {report['documents']} documents, {report['chunks']} chunks"))
        return done

    def _progress(self, verb: str) -> Callable[[str, int, int], None]:
        return lambda what, done, of: self.report(f"{verb} {what}", done, of, "")

    def _behavior_names(self) -> list[str]:
        return sorted(p.name for p in (self.folder / "behaviors").glob("*/") if not p.name.startswith("."))

    def _place(self) -> Place:
        from factform.facts.care import Place

        use, wait_s = self.embedder_in_use(), self.settings.facts.writer_wait_s
        self.state.mkdir(parents=True, exist_ok=True)
        return Place(self.state, use.encoder.identity, use.encoder.dim, use.chunk_tokens, wait_s)

    def _close_facts(self) -> None:
        """Let go of the store: it is looked at as it lies on disk, and may be exchanged."""
        if "facts" in self.__dict__:
            self.facts.close()
            del self.__dict__["facts"]


def adapters_check(folder: Path) -> Check:
    from factform.facts.care import verdict
    from factform.form import registry

    wrong = []
    digests = sorted(path.parent.name for path in folder.glob("*/adapter.json"))
    for digest in digests:
        try:
            registry.verify(folder, digest)
        except FactformError as error:
            wrong.append(str(error))
    right = "all adapters hash to their names"
    return verdict(
        "adapters", wrong, "some are not what was registered", right, count=len(digests), command="tune again"
    )


def behaviors_check(folder: Path, names: Sequence[str]) -> Check:
    from factform.facts.care import verdict
    from factform.form.behavior import load_behavior

    wrong = []
    for name in names:
        try:
            load_behavior(folder / name)
        except BehaviorError as error:
            wrong.append(str(error))
    command = "`factform behaviors check NAME` names every line"
    return verdict("behaviors", wrong, "some cannot be used", "all can be used", count=len(names), command=command)


def audit_check(path: Path) -> Check:
    from factform.audit.log import AuditLog
    from factform.facts.care import Check, problem

    if not path.exists():
        return Check("audit", "ok", "nothing was answered yet")
    try:
        problems = AuditLog.open(path).verify()
    except FactformError as error:
        problems = [str(error)]
    if problems:
        return problem("audit", "records of answers were changed", problems, "restore them from a backup")
    return Check("audit", "ok", "every record is as written, and the chain is whole")


def told(checks: Sequence[Check]) -> list[str]:
    """Every problem in a sentence of its own."""
    found = []
    for check in checks:
        if check.status == "problem":
            more = f"; {check.count - len(check.examples)} more" if check.count > len(check.examples) > 0 else ""
            examples = f" ({'; '.join(check.examples)}{more})" if check.examples else ""
            found.append(f"{check.name}: {check.message}{examples}: {check.command}")
    return found


def machine() -> dict[str, Any]:
    """What this machine computes with; its speed is measured again, and the choice kept for the next start."""
    import torch

    from factform.int8.build import native
    from factform.model.probe import choose, cores

    choice = choose(again=True)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": cores(),
        "threads": choice.threads,
        "dtype": choice.dtype,
        "int8": choice.int8,
        "native": choice.native,
        "native_missing": native().reason,
        "cuda": torch.cuda.is_available(),
        "sqlite": sqlite3.sqlite_version,
    }
