"""Which files came and went below a folder since it was last looked at.

Knows nothing of what is in them. Only names are compared, folder by folder: a table of many versions has tens of
thousands of files, and looking at each of them after every commit cost more than all else of it.
"""

from __future__ import annotations

import os
from pathlib import Path


class Listing:
    """Files below `folder`, none of them known before the first call of `changes`."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._files: dict[str, set[str]] = {}
        self._folders: dict[str, set[str]] = {}

    def changes(self) -> tuple[set[str], set[str]]:
        """Paths of files that came, and of files that went, since the last call; all of them came at the first."""
        came: set[str] = set()
        went: set[str] = set()
        self._look(str(self._folder), came, went)
        return came, went

    def _look(self, folder: str, came: set[str], went: set[str]) -> None:
        files, folders = self._files.setdefault(folder, set()), self._folders.setdefault(folder, set())
        try:
            names = set(os.listdir(folder))  # noqa: PTH208 (a Path for each would cost more than all the rest)
        except FileNotFoundError:
            names = set()
        for name in names - files - folders:
            (folders if Path(folder, name).is_dir() else files).add(name)
            if name in files:
                came.add(f"{folder}/{name}")
        gone = files - names
        went.update(f"{folder}/{name}" for name in gone)
        files -= gone
        for name in sorted(folders):
            self._look(f"{folder}/{name}", came, went)
        folders &= names
