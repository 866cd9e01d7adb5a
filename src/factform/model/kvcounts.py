"""What the cache of encoded blocks was good for, counted in one process and added up over all of a project.

Knows nothing of blocks. The file is replaced as a whole and not fsynced: a crash costs the last seconds' counts.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

FILE = "counts.json"

WAIT_S = 1.0
"""Longest wait for another process that is adding its counts; ours are then added the next time."""


@dataclass(frozen=True)
class Counts:
    """`hits` are blocks found in memory, `disk_hits` on disk, `misses` were encoded; `damaged` files were thrown away.

    `reused_tokens` and `encoded_tokens` are the same in tokens; `encode_s` and `load_s` what encoding and reading from
    disk took.
    """

    hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    damaged: int = 0
    reused_tokens: int = 0
    encoded_tokens: int = 0
    encode_s: float = 0.0
    load_s: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __sub__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)})

    def report(self) -> dict[str, Any]:
        """The counts with `hit_rate`, the share of tokens that needed no encoding (None before the first), and
        `saved_s`, what encoding those would have taken at the speed measured, less what loading them took."""
        asked = self.reused_tokens + self.encoded_tokens
        speed = self.encode_s / self.encoded_tokens if self.encoded_tokens else None
        saved = None if speed is None else round(self.reused_tokens * speed - self.load_s, 3)
        rounded = {"encode_s": round(self.encode_s, 3), "load_s": round(self.load_s, 3)}
        rate = round(self.reused_tokens / asked, 4) if asked else None
        return {**asdict(self), **rounded, "hit_rate": rate, "saved_s": saved}


def read_counts(folder: Path) -> Counts:
    """The counts in `folder`; zeros where there are none or the file cannot be read."""
    try:
        return Counts(**json.loads((folder / FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return Counts()


def add_counts(folder: Path, counts: Counts) -> bool:
    """Add `counts` to those in `folder`; False where that is not possible now."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "counts.lock", timeout=WAIT_S):
            temporary = folder / f"{FILE}.{os.getpid()}"
            temporary.write_text(json.dumps(asdict(read_counts(folder) + counts)) + "\n", "utf-8")
            temporary.replace(folder / FILE)
    except (OSError, Timeout):
        return False
    return True
