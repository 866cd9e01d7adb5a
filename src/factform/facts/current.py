"""Which table of the index is in use now, and whether it was made with the present settings.

Knows nothing of what is written to a table or looked for in it. The ledger holds the table's name, so that a rebuild by
one process is seen by all others.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from factform.errors import SettingsError, StoreError
from factform.facts.index import Index, remove_table
from factform.facts.ledger import Ledger
from factform.facts.recovery import sound
from factform.facts.rows import LAYOUT
from factform.ids import canonical_json

MADE_BY = "made_by"
"""Key of the small value that says how the embedder of the table in use is opened again."""


class CurrentIndex:
    """The table that the ledger in `folder` names. `embedder` is its identity, `dim` the length of its vectors;
    `made_by` says how it is opened, in words of the caller's own."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        *,
        embedder: Mapping[str, Any],
        dim: int,
        chunk_tokens: int,
        made_by: str = "",
    ):
        self.folder = folder
        self.made_by = made_by
        self._ledger = ledger
        self._embedder = embedder
        self._dim = dim
        self._chunk_tokens = chunk_tokens
        self._index: Index | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
        self._index = None

    def durable(self) -> int | None:
        """The last version of the table in use that was forced to disk; None when the ledger does not say."""
        name, _, version = (self._ledger.get_meta("durable") or "").partition(":")
        return int(version) if name and name == self._ledger.get_meta("table") else None

    def mark(self) -> dict[str, str]:
        """What to note in the ledger once the table as it is now was forced to disk."""
        return _mark(self.get())

    def set_back(self) -> None:
        """Open the table anew, without whatever may not be on disk. Raises StoreError when it has to be made anew."""
        with self._lock:
            name = self._ledger.get_meta("table")
            if name is None:
                raise StoreError(f"the index in {self.folder} is not there; run `factform index rebuild`")
            self._index = None
            self._index = sound(self.folder / "index", name, self._dim, self.durable())

    def get(self) -> Index:
        """The table the ledger names now: another process may have rebuilt it since the last call."""
        with self._lock:
            name = self._ledger.get_meta("table")
            if name is None:
                raise StoreError(f"the index in {self.folder} is not there; run `factform index rebuild`")
            if self._index is None or self._index.name != name:
                self.check_settings()
                self._index = Index.open(self.folder / "index", name, self._dim)
            return self._index

    def create_next(self) -> Index:
        """A new, empty table beside the one in use; nobody uses it before `use`."""
        numbers = [_number(path.stem) for path in (self.folder / "index").glob("*.lance")]
        name = f"chunks_{max([_number(self._ledger.get_meta('table') or ''), *numbers]) + 1}"
        remove_table(self.folder / "index", name)
        return Index.create(self.folder / "index", name, self._dim)

    def use(self, index: Index, note: Callable[[Mapping[str, str]], None] | None = None) -> None:
        """Switch to another table, for this process and (through the ledger) for all others, in one transaction: that
        of `note`, which is given the small values that say so."""
        values = {"table": index.name, "index_settings": self.settings(), MADE_BY: self.made_by, **_mark(index)}
        (note or self._ledger.note)(values)
        self._index = index

    def open_beside(self, name: str, durable: int) -> Index:
        """A table that is not in use yet, at a version that was forced to disk. Raises StoreError when it is gone."""
        return sound(self.folder / "index", name, self._dim, durable)

    def settings(self) -> str:
        """What an index made now depends on besides the documents, as canonical JSON."""
        return canonical_json(self._settings())

    def wants_note(self) -> bool:
        """Whether it is not noted how the embedder of the table in use is opened: stores are older than that note."""
        return bool(self.made_by and self._ledger.get_meta("table")) and self._ledger.get_meta(MADE_BY) != self.made_by

    def note_made_by(self) -> None:
        """Note it. The caller holds the writer's place and has checked the settings."""
        if self.wants_note():
            self._ledger.set_meta(MADE_BY, self.made_by)

    def _settings(self) -> dict[str, Any]:
        """What the index depends on besides the documents."""
        return {"embedder": dict(self._embedder), "chunk_tokens": self._chunk_tokens, "layout": LAYOUT}

    def check_settings(self) -> None:
        """Raises SettingsError when the table was made with another embedder or chunk size than now, StoreError when
        its rows have another layout."""
        made = self._ledger.get_meta("index_settings")
        now = self._settings()
        if made is None or made == canonical_json(now):
            return
        try:
            layout = json.loads(made)["layout"]
        except (ValueError, LookupError, TypeError):
            raise StoreError("what the ledger says of the index is damaged; run `factform doctor --repair`") from None
        if layout != LAYOUT:
            raise StoreError(
                f"the index in {self.folder} has layout {layout}, this version of Factform needs layout {LAYOUT}; "
                "run `factform index rebuild`, which makes it anew from the stored documents"
            )
        different = "; ".join(_differences(json.loads(made), now))
        if self._index is not None:
            raise SettingsError(
                f"the index in {self.folder} was made anew with other settings while it was open here: {different}. "
                "Open the project again, or go back to the settings it has here with `factform index rebuild`"
            )
        raise SettingsError(
            f"the index in {self.folder} was made with other settings: {different}. Run `factform index rebuild "
            "--background`, which embeds everything again while documents are searched and added as before, and then "
            "switches to it; or `factform index rebuild`, while nothing can be added"
        )


def _number(table: str) -> int:
    """The number in a table's name, 0 where it has none."""
    found = re.fullmatch(r"chunks_(\d{1,9})", table)
    return int(found[1]) if found else 0


def _mark(index: Index) -> dict[str, str]:
    return {"durable": f"{index.name}:{index.version()}"}


def _differences(made: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was when the index was made, one short line each."""
    before, after = (_flat(settings) for settings in (made, now))
    names = sorted(set(before) | set(after))
    return [
        f"{name} was {before.get(name)}, is {after.get(name)}" for name in names if before.get(name) != after.get(name)
    ]


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    embedder = settings.get("embedder")
    parts = embedder.items() if isinstance(embedder, Mapping) else [("digest", embedder)]
    rest = {name: value for name, value in settings.items() if name != "embedder"}
    return {
        **{f"embedder {name}": _short(value) for name, value in parts},
        **{name: _short(value) for name, value in rest.items()},
    }


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else canonical_json(value)
