"""The verbs of whoever looks after a project: examine it, mend it.

Knows nothing of answers or of what a document says. Everything is looked at, also where parts of it cannot be opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factform.documents import Documents
from factform.errors import BehaviorError, FactformError, StoreError
from factform.records import as_json

if TYPE_CHECKING:
    from factform.facts.care import Check, Place
    from factform.facts.care_repair import Action


class Care(Documents):
    """A project's health."""

    def examined(self, *, quick: bool = False) -> list[Check]:
        """Every check of the store, the records and the adapters; nothing is changed. Raises StoreBusy while another
        process writes."""
        from factform.facts.care import examine

        self._close_facts()
        checks = examine(self._place(), quick=quick, progress=lambda what, n, of: self.report(f"check {what}", n, of, ""))
        return [*checks, _audit(self.state / "audit.db", lambda: self.audit.verify()), self._adapters_check()]

    def repaired(self) -> list[Action]:
        """Mend what can be mended; what is left is told by `examined`. Raises StoreError where nothing can be done."""
        from factform.facts.care import examine
        from factform.facts.care_repair import Action, needs_index, repair_truth, source_bytes

        self._close_facts()
        place = self._place()

        def progress(what: str, done: int, of: int) -> None:
            self.report(f"repair {what}", done, of, "")

        root, most = self.folder / self.settings.facts.root, self.settings.facts.max_file_mb << 20
        done = repair_truth(place, lambda row: source_bytes(root, row, most), progress)
        if needs_index(examine(place, quick=False, progress=progress)):
            report = self.rebuild_index()
            done.append(Action(f"the index was made anew: {report['documents']} documents, {report['chunks']} chunks"))
        return done

    def _place(self) -> Place:
        from factform.facts.care import Place

        encoder = self.encoder()
        settings = self.settings.facts
        self.state.mkdir(parents=True, exist_ok=True)
        return Place(self.state, encoder.digest, encoder.dim, settings.chunk_tokens, settings.writer_wait_s)

    def _close_facts(self) -> None:
        """Let go of the store: it is looked at as it lies on disk, and may be exchanged."""
        if "facts" in self.__dict__:
            self.facts.close()
            del self.__dict__["facts"]

    def _adapters_check(self) -> Check:
        from factform.facts.care import verdict
        from factform.form import registry

        wrong, infos = [], []
        with suppress(FactformError):
            infos = registry.list_adapters(self.adapters_folder)
        for folder in sorted(self.adapters_folder.glob("*/adapter.json")) if self.adapters_folder.is_dir() else []:
            try:
                registry.verify(self.adapters_folder, folder.parent.name)
            except FactformError as error:
                wrong.append(str(error))
        return verdict(
            "adapters", wrong, "adapters that are not what was registered", "all adapters hash to their names",
            count=len(infos), command="factform tune",
        )  # fmt: skip


def _audit(path: Path, verify: Callable[[], Sequence[str]]) -> Check:
    from factform.facts.care import Check, problem

    if not path.exists():
        return Check("audit", "ok", "nothing was answered yet")
    if problems := verify():
        return problem("audit", "records of answers were changed", problems, "factform backup restore")
    return Check("audit", "ok", "every record is as written, and the chain is whole")


def told(checks: Sequence[Check]) -> list[str]:
    """Every problem in a sentence of its own."""
    found = []
    for check in checks:
        if check.status == "problem":
            examples = f" ({'; '.join(check.examples)})" if check.examples else ""
            found.append(f"{check.name}: {check.message}{examples}; {check.command}")
    return found


def checks_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    return [as_json(check) for check in checks]


def facts_or_none(status: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The store's counts; None where it cannot be opened, which the checks then tell."""
    try:
        return status()
    except (StoreError, BehaviorError):
        return None
