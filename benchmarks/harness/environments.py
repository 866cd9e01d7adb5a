"""One virtual environment a peer, its packages pinned, and peers run in them one after another.

Knows nothing of what is measured. Which package index is used is pip's business.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from factform.ids import sha256_json, sha256_text

PEERS = Path(__file__).resolve().parents[1] / "peers"
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
LIMIT_S = 1800

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "DO_NOT_TRACK": "1",
}


class PeerFailed(Exception):
    """A peer could not be installed or run; the message is the last line it printed, without paths and addresses."""


def python_for(peer: str, build: Path) -> Path:
    """The Python of the environment of `peer`, made on first use and again when its requirements change."""
    wanted = (PEERS / f"{peer}.txt").read_text("utf-8")
    folder = build / "environments" / peer
    python, stamp = folder / "bin" / "python", folder / "installed"
    state = sha256_text(f"{sys.version}\n{wanted}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{peer}.lock")):  # two benchmarks at once must not install into one folder
        if stamp.is_file() and stamp.read_text("utf-8") == state and python.exists():
            return python
        _checked([sys.executable, "-m", "venv", "--clear", str(folder)])
        given = folder / "constraints.txt"
        given.write_text(unpinned(CONSTRAINTS.read_text("utf-8"), wanted), "utf-8")
        options = ["--quiet", "--disable-pip-version-check", "-c", str(given)]
        _checked([str(python), "-m", "pip", "install", *options, "-r", str(PEERS / f"{peer}.txt")])
        stamp.write_text(state, "utf-8")
    return python


def unpinned(constraints: str, wanted: str) -> str:
    """The project's constraints without those that a peer has an answer of its own to: LlamaIndex's BM25 refuses the
    PyStemmer that the project needs."""
    own = {name_of(line) for line in wanted.splitlines()}
    return "".join(f"{line}\n" for line in constraints.splitlines() if "==" not in line or name_of(line) not in own)


def name_of(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0].strip()).lower()


def run_peer(python: Path, program: str, job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The result of `program` for `job`. Both lie in `folder`; a result of the very same job is used again."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = sha256_json({**job, "program": program})[:16]
    result = folder / f"{program}-{digest}.json"
    if result.is_file():
        return dict(json.loads(result.read_text("utf-8")))
    given, fresh = folder / f"{program}-{digest}.job", folder / f"{program}-{digest}.new"
    given.write_text(json.dumps(job), "utf-8")
    environment = {**os.environ, **QUIET, "OMP_NUM_THREADS": str(job["threads"])}
    _checked([str(python), str(PEERS / f"{program}.py"), str(given), str(fresh)], environment)
    fresh.replace(result)
    return dict(json.loads(result.read_text("utf-8")))


def _checked(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PeerFailed(f"not done after {LIMIT_S} s") from error
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        raise PeerFailed(f"exit code {done.returncode}: {public(lines[-1]) if lines else 'nothing was printed'}")


def public(text: str) -> str:
    """`text` without addresses and without the folders of this machine's paths."""
    text = re.sub(r"\w+://\S+", "<address>", text)
    return re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)+", "", text)
