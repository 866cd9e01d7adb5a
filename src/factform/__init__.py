"""Factform: facts from documents, form from the model."""

from __future__ import annotations

import os

__version__ = "0.1.0"

if "OMP_WAIT_POLICY" not in os.environ:
    # Read when torch is loaded. A worker of GCC's OpenMP that waits for the next product keeps its core busy for
    # milliseconds by default; next to another process on the same cores both lose a quarter, and alone it gains nothing
    # (docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
