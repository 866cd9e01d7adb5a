"""The verbs of whoever looks after a project: examine it, mend it.

Knows nothing of answers or of what a document says. Everything is looked at, also where parts of it cannot be opened.
"""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factform.documents import Documents
from factform.errors import BehaviorError, FactformError
from factform.records import as_json

if TYPE_CHECKING:
    from factform.facts.care import Check, Place
    from factform.facts.care_repair import Action


class Care(Documents):
    """A project's health."""

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

        self._close_facts()
        place, progress = self._place(), self._progress("repair")
        root, most = self.folder / self.settings.facts.root, self.settings.facts.max_file_mb << 20
        done = repair_truth(place, lambda row: source_bytes(root, row, most), progress)
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

        encoder = self.encoder()
        settings = self.settings.facts
        self.state.mkdir(parents=True, exist_ok=True)
        return Place(self.state, encoder.identity, encoder.dim, settings.chunk_tokens, settings.writer_wait_s)

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
