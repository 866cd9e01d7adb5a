"""Help is instant: building the command line imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

HEAVY = (
    *("torch", "lancedb", "pyarrow", "numpy", "scipy", "ray", "transformers", "llguidance", "tokenizers"),
    *("rich", "httpx", "trafilatura", "lxml", "docx", "pypdfium2"),
)
"""Not pydantic: typer itself looks at a verb's options with it."""


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["evaluate", "answers", "--help"], ["nothing"]])
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, json\nfrom factform.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(ran.stderr.splitlines()[-1]))
    assert "factform.cli.app" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_help_takes_little_time() -> None:
    """Processor time of the child, the best of three, so that a busy machine does not decide; 0.3 s is the promise."""
    best = 9.0
    for _ in range(3):
        code = "from factform.cli import main; import time; main(['--help']); print(time.process_time())"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        best = min(best, float(out.split()[-1]))
    assert best < 0.3


def test_python_dash_m_is_the_same_command_line() -> None:
    started = time.perf_counter()
    ran = subprocess.run([sys.executable, "-m", "factform", "version", "--json"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "factform" in json.loads(ran.stdout)
    assert time.perf_counter() - started < 60
