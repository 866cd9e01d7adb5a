"""The rooms and their arrows, checked on the source: a wrong import fails here, wherever it hides."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "factform"

VOCABULARY = {"", "records", "errors", "ids", "jsonvalue", "hardware", "caches", "compute", "suffixes", "groups"}
"""What every room may import; "" is the package itself, which holds the version."""

MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "records": set(),
    "errors": set(),
    "ids": set(),
    "jsonvalue": set(),
    "suffixes": set(),
    "groups": set(),
    "hardware": set(),
    "caches": set(),
    "compute": set(),
    "int8": {"ids", "hardware", "caches", "compute"},
    "settings": {"errors"},
    "access": {"errors"},
    "sources": {"records", "errors", "suffixes"},
    "web": VOCABULARY | {"settings"},
    "sync": VOCABULARY | {"sources", "facts"},
    "watch": VOCABULARY,
    "intake": VOCABULARY | {"settings", "sources", "facts", "web"},
    "facts": VOCABULARY | {"settings", "int8"},
    "model": VOCABULARY | {"settings", "int8"},
    "measure": VOCABULARY | {"settings"},
    "audit": VOCABULARY | {"settings"},
    "form": VOCABULARY | {"settings", "model"},
    "encoded": VOCABULARY | {"settings", "model"},
    "answer": VOCABULARY | {"model", "audit"},
    "evaluation": VOCABULARY | {"answer", "measure"},
    "fitting": VOCABULARY | {"facts", "measure"},
    "tuning": VOCABULARY | {"form", "measure", "model"},
    "opened": VOCABULARY | {"settings", "facts", "model", "audit", "answer", "encoded", "access"},
    "documents": VOCABULARY | {"settings", "sources", "facts", "opened", "intake", "sync", "watch"},
    "care": VOCABULARY | {"settings", "facts", "model", "form", "audit", "documents", "int8"},
    "backup": VOCABULARY | {"settings", "facts", "audit"},
    "project": VOCABULARY
    | {"settings", "facts", "model", "form", "audit", "measure", "answer", "evaluation", "tuning", "fitting"}
    | {"care", "opened"},
    "cli": VOCABULARY
    | {"settings", "facts", "model", "form", "audit", "measure", "tuning", "fitting", "project", "backup"},
    "__main__": {"cli"},
}
"""Each room and what it may import beside itself. Imports under TYPE_CHECKING count like any other: a room that names
another's types cannot be understood without it. project.py needs no exception, as it may import every room anyway.
"""

LONGEST = 650
"""Lines of a file. The house says a few hundred; this is where a cut is overdue."""

FILES = sorted(SOURCE.rglob("*.py"))


def room(module: str) -> str:
    """ "factform.facts.store" -> "facts"."""
    return module.partition(".")[2].partition(".")[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, module) for each import of factform in `source`, at any depth. `package` resolves relative ones."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from factform import facts` imports a room; `from factform import __version__` the package.
            names = [f"factform.{n.name}" if room(f"factform.{n.name}") in MAY_IMPORT else base for n in node.names]
            yield from ((node.lineno, name) for name in (names if base == "factform" else [base]))
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def wrong_arrows(source: str, module: str, package: str) -> list[str]:
    """Every import in `source` that its room may not make."""
    here = room(module)
    if here not in MAY_IMPORT:
        return [f"{module}: is in no known room: say in this test what it may import"]
    return [
        f"{module}:{line}: {here or 'the package'} must not import {name}"
        for line, name in imports(source, package)
        if name.split(".")[0] == "factform" and room(name) != here and room(name) not in MAY_IMPORT[here]
    ]


def test_imports_go_one_way() -> None:
    found = []
    for path in FILES:
        module = module_of(path)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found += wrong_arrows(path.read_text("utf-8"), module, package)
    assert found == []


def test_every_room_of_the_plan_is_there() -> None:
    assert {room(module_of(path)) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("factform.facts.store", "from factform.model.reader import Reader"),
        ("factform.facts.store", "import factform.form.gate"),
        ("factform.measure.score", "from factform import facts"),
        ("factform.measure.score", "from ..form import gate"),
        ("factform.form.train", "def f():\n    from factform.facts.store import DataLayer"),
        ("factform.model.kv", "if TYPE_CHECKING:\n    from factform.form.behavior import Behavior"),
        ("factform.audit.log", "import importlib\nimportlib.import_module('factform.facts.store')"),
        ("factform.answer", "from factform.measure.metrics import token_f1"),
        ("factform.project", "from factform.cli.run import opened"),
        ("factform.records", "from factform.errors import FactformError"),
        ("factform.newroom.thing", "import json"),
    ],
)
def test_the_walker_sees_a_wrong_import(module: str, source: str) -> None:
    assert len(wrong_arrows(source, module, module.rpartition(".")[0])) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("factform.form.train", "from factform.model.kvstore import BlockStore"),
        ("factform.facts.store", "from . import blobs\nfrom .index import Index\nimport json, torch"),
        ("factform.cli.run", "from factform import __version__\nfrom factform.project import Project"),
    ],
)
def test_the_walker_lets_right_imports_pass(module: str, source: str) -> None:
    assert wrong_arrows(source, module, module.rpartition(".")[0]) == []


@pytest.mark.parametrize("module", ["factform", "factform.project", "factform.cli"])
def test_importing_the_package_loads_no_engine(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    engines = {"torch", "lancedb", "pyarrow", "ray", "transformers", "scipy", "llguidance", "numpy"}
    assert engines & set(loaded) == set()


def test_files_stay_readable() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}


def test_modules_say_what_they_do_not_know() -> None:
    silent = []
    for path in FILES:
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        if path.name != "__init__.py" and not re.search(r"\b[Kk]nows? nothing|knows? no\b", text):
            silent.append(path.relative_to(ROOT).as_posix())
    assert silent == []


MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:home|root|Users|work|mnt|tmp)/[\w.]|[A-Z]:\\\\?Users")
SEARCHED = ("src", "docs", "tests", "examples", "benchmarks", "recipes", ".ci")
TEXT = (".py", ".md", ".toml", ".json", ".jsonl", ".sql", ".sh", ".yml", ".yaml", "")


def machine_paths(text: str) -> list[str]:
    return MACHINE_PATH.findall(text)


def test_no_path_of_somebodys_machine() -> None:
    # In a linked worktree .git is a file that names a folder of this machine; it is no part of the project.
    files = [
        *(p for p in ROOT.glob("*.*") if p.name != ".git"),
        *(path for folder in SEARCHED for path in (ROOT / folder).rglob("*")),
    ]
    found = []
    for path in files:
        if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts and path != Path(__file__):
            found += [(path.name, hit) for hit in machine_paths(path.read_text("utf-8", "replace"))]
    assert found == []
    assert machine_paths("model = '/home/somebody/models'") == ["/home/s"]
    assert machine_paths("see docs/home/page and examples/home/x") == []
