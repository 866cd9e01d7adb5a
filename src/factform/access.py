"""access.toml: who holds which access labels. Read strictly, and again whenever somebody asks.

Knows nothing of documents, nor of how a principal proves who they are: that is for whoever calls.

    [principals]
    alice = ["tax", "@finance"]      # labels, and @groups of labels
    bob   = []                       # sees what has no label

    [groups]
    finance = ["invoices", "audit"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from factform.errors import AccessError, SettingsError

FILE = "access.toml"
GROUP = "@"


def labels_of(
    folder: Path,
    principal: str | None,
    labels: Sequence[str] | None,
    *,
    required: bool,
    labelled: Callable[[], bool] = lambda: False,
) -> tuple[str, ...] | None:
    """The labels of who asks, sorted; None for the owner, who sees everything.

    `labels` given by the caller are believed: then `principal` only names who it was. Otherwise access.toml must know
    the principal; where there is none, nobody is restricted unless access is `required` or a document is `labelled`:
    labels that nobody is said to hold open nothing. Raises AccessError for one it
    does not know, and for nobody where access is required; SettingsError for a file that is wrong.
    """
    if labels is not None:
        return _checked(labels)
    path = folder / FILE
    if principal is None:
        if required:
            raise AccessError('facts.access is "required": say who asks (--as PRINCIPAL, or --label LABEL)')
        return None
    if not path.is_file():
        if required or labelled():
            raise AccessError(f"there is no {FILE} to say what {principal!r} may read: write one with [principals]")
        return None
    known = read_access(path)
    if principal not in known:
        raise AccessError(
            f"{FILE} does not know {principal!r}: add a line to [principals], or ask as somebody it knows"
        )
    return known[principal]


def read_access(path: Path) -> dict[str, tuple[str, ...]]:
    """Principals and all labels they hold, groups resolved. Raises SettingsError naming file, table and name."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    if unknown := sorted(set(raw) - {"principals", "groups"}):
        raise SettingsError(f"{path}: unknown table {unknown[0]!r}: there are [principals] and [groups]")
    groups = _table(path, raw, "groups")
    for name, held in groups.items():
        if nested := [label for label in held if label.startswith(GROUP)]:
            raise SettingsError(f"{path}: groups.{name}: {nested[0]!r}: a group holds labels, not other groups")
    return {
        name: _checked([label for each in held for label in _resolved(path, name, each, groups)])
        for name, held in _table(path, raw, "principals").items()
    }


def _table(path: Path, raw: Mapping[str, Any], name: str) -> dict[str, list[str]]:
    table = raw.get(name, {})
    for key, held in table.items() if isinstance(table, dict) else [("", None)]:
        if not isinstance(held, list) or not all(isinstance(label, str) and label for label in held):
            raise SettingsError(f'{path}: {name}.{key}: expected a list of labels like ["tax", "hr"]')
    return dict(table)


def _resolved(path: Path, principal: str, label: str, groups: Mapping[str, list[str]]) -> list[str]:
    if not label.startswith(GROUP):
        return [label]
    if label[1:] not in groups:
        raise SettingsError(f"{path}: principals.{principal}: there is no group {label[1:]!r} in [groups]")
    return groups[label[1:]]


def _checked(labels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, str) or not all(isinstance(label, str) and label for label in labels):
        raise AccessError("labels are a list of words that are not empty")
    return tuple(sorted(set(labels)))
