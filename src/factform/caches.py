"""Where what can be made again is kept on this machine: models, their digests, compiled code, measured times.

Knows nothing of what is in it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """FACTFORM_CACHE, or `factform` in the platform's folder for caches of this user."""
    if given := os.environ.get("FACTFORM_CACHE"):
        return Path(given).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "factform"
