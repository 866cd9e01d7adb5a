"""What every ingest program shares: documents in, seconds and memory out.

Knows nothing of any system, and needs the standard library only: it runs in every peer's own environment.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Load = Callable[[Sequence[Mapping[str, str]]], int]
"""Take in documents (id, title, text) into something new; returns how many vectors that made."""

PAGE = 1 << 10


def measured(loads: Mapping[str, Load], job: Mapping[str, Any]) -> dict[str, Any]:
    """Each setting's seconds over its documents: the job's "documents", or its "chunks" for the setting "same".

    A few documents are taken in first, into another store: loading models and starting threads counts for nobody.
    """
    rows = json.loads(Path(job["data"]).read_text("utf-8"))
    found: dict[str, Any] = {}
    for setting, load in loads.items():
        given = rows["chunks" if setting == "same" else "documents"]
        load(given[:4])
        started = time.perf_counter()
        vectors = load(given)
        seconds = time.perf_counter() - started
        found[setting] = {"seconds": seconds, "documents": len(rows["documents"]), "vectors": vectors}
    return found


def peak_mb() -> float:
    """The most memory this process, and any process it started, was seen to hold."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    unit = PAGE if sys.platform == "darwin" else 1
    return sum(resource.getrusage(each).ru_maxrss for each in who) / unit / 1024
