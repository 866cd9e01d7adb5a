"""A project on tiny random models, filled and tuned once, and the command line run in this process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from factform.cli import main

REAL_CACHE = os.environ.get("FACTFORM_CACHE")
"""Where the default models are, before the tests here set up a cache of their own; None: the user's."""

FLATS = range(1, 31)

SCHEMA = {
    "type": "object",
    "properties": {
        "source": {"type": "string", "x-factform": "source"},
        "quote": {"type": "string", "x-factform": "quote"},
        "rent": {"type": "string", "pattern": "^[0-9]{3}$"},
    },
    "required": ["source", "quote", "rent"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Ran:
    """What one run of the command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value stdout must hold; anything beside it fails here."""
        return json.loads(self.out)


Run = Callable[..., Ran]


def sentence(flat: int) -> str:
    return f"The monthly rent for flat {flat} is {700 + 7 * flat} euros."


def write_behavior(folder: Path, name: str) -> None:
    """A behavior that must answer (no refusal) and, with one short passage, always ends within its tokens."""
    path = folder / "behaviors" / name
    path.mkdir(parents=True)
    toml = f'name = "{name}"\ndescription = "Rents."\npassages = 1\nmax_tokens = 150\nrefusal = false\n'
    (path / "behavior.toml").write_text(toml)
    (path / "instructions.md").write_text("Answer with the rent and the sentence that states it.")
    (path / "schema.json").write_text(json.dumps(SCHEMA, indent=2))
    (path / "examples.jsonl").write_text("".join(json.dumps(example(flat)) + "\n" for flat in FLATS[:24]))
    (path / "cases.jsonl").write_text("".join(json.dumps(example(flat)) + "\n" for flat in FLATS[24:]))


def example(flat: int) -> dict[str, Any]:
    expected = {"source": f"flat-{flat}", "quote": sentence(flat), "rent": str(700 + 7 * flat)}
    question = f"What is the rent for flat {flat}?"
    documents = [f"flat-{flat}"]
    return {"id": f"e{flat}", "question": question, "expected": expected, "answerable": True, "documents": documents}


def settings(model: Path, embedder: Path) -> str:
    return (
        f"[model]\nlanguage = {json.dumps(str(model))}\nembedder = {json.dumps(str(embedder))}\ndtype = 'float32'\n"
        "[facts]\npassages = 1\n[answer]\nmax_tokens = 150\n"
        "[train]\nrank = 2\nalpha = 4\nbatch = 2\nheld_out = 4\ngate_cases = 8\ntwins = 0\nunanswerable = 0\n"
    )


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tiny model gains nothing from threads, and loses much where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Digests of the tiny models are remembered apart from the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTFORM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process; `capfd` also sees what libraries write past Python."""

    def call(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture(scope="package")
def filled(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path, tiny_embedder_dir: Path) -> Path:
    """A project with documents and a behavior. Copied for every test, so that none sees another's changes."""
    folder = tmp_path_factory.mktemp("filled") / "project"
    assert main(["init", "--project", str(folder)]) == 0
    (folder / "factform.toml").write_text(settings(tiny_dir, tiny_embedder_dir))
    write_behavior(folder, "rents")
    rows = [{"id": f"flat-{flat}", "title": f"Flat {flat}", "text": sentence(flat)} for flat in FLATS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["add", "--jsonl", str(folder / "rows.jsonl"), "--project", str(folder)]) == 0
    return folder


@pytest.fixture(scope="package")
def tuned_once(tmp_path_factory: pytest.TempPathFactory, filled: Path) -> Path:
    """The same with two adapters, neither promoted."""
    folder = tmp_path_factory.mktemp("tuned") / "project"
    shutil.copytree(filled, folder)
    for seed in ("1", "2"):
        assert main(["tune", "rents", "--steps", "2", "--seed", seed, "--project", str(folder)]) == 0
    return folder


@pytest.fixture
def project(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "project"))


@pytest.fixture
def tuned(tuned_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tuned_once, tmp_path / "tuned"))
