"""docs/reference.md against the program, both ways: verbs, options, settings, variables, JSON fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factform.cli.app import build
from factform.settings import Settings

from .conftest import Run, example

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reference.md").read_text("utf-8")
OF_EVERY_VERB = {"--project", "--json", "--help"}


def sections() -> dict[str, tuple[str, str]]:
    """Verb -> (its heading's arguments, its section's text)."""
    found = {}
    for part in TEXT.split("\n### ")[1:]:
        heading, _, body = part.split("\n## ")[0].partition("\n")
        if match := re.fullmatch(r"`factform ((?:[a-z]+ ?)+)(.*)`", heading):
            found[match[1].strip()] = (match[2], body)
    return found


def verbs(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every verb with its command."""
    command = command or build()
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from verbs(inner, (*path, name))
        else:
            yield " ".join((*path, name)), inner


VERBS = dict(verbs())


def test_every_verb_has_a_section_and_every_section_a_verb() -> None:
    assert set(sections()) == set(VERBS)
    assert len(VERBS) > 20


@pytest.mark.parametrize("verb", VERBS)
def test_options_and_arguments_are_those_of_the_program(verb: str) -> None:
    heading, body = sections()[verb]
    options = {o for p in VERBS[verb].params if p.param_type_name == "option" for o in p.opts} | {"--help"}
    assert options >= OF_EVERY_VERB
    assert set(re.findall(r"^\| `(-{1,2}[a-z-]+)", body, re.M)) == options - OF_EVERY_VERB
    arguments = [p.metavar for p in VERBS[verb].params if p.param_type_name == "argument"]
    assert heading.split() == arguments


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_for_and_gives_an_example_that_parses(verb: str, run: Run) -> None:
    helped = run(*verb.split(), "--help")
    assert helped.code == 0
    words = " ".join(helped.out.split())
    assert "Example: factform " + verb in words
    given = re.search(r"Example: (factform .*?) (?:Arguments|Options):", words)
    assert given
    used = set(re.findall(r"(?<!\S)--?[a-z-]+", given[1]))
    assert used <= {o for p in VERBS[verb].params for o in p.opts}


def test_settings_are_those_of_the_program() -> None:
    expected = {}
    for name, section in Settings.model_fields.items():
        for key, field in type(section.default).model_fields.items():
            expected[f"{name}.{key}"] = json.dumps(field.default)
    assert dict(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| `([^`]*)` \|", TEXT, re.M)) == expected


def test_environment_variables_are_those_of_the_program() -> None:
    used = {n for p in (ROOT / "src").rglob("*.py") for n in re.findall(r"FACTFORM_[A-Z]+", p.read_text("utf-8"))}
    assert set(re.findall(r"^\| `(FACTFORM_[A-Z]+)` \|", TEXT, re.M)) == used


def test_exit_codes_are_those_of_the_program() -> None:
    from factform.cli import run as module

    named = {module.FAILED, module.USAGE, module.NOT_PROMOTED, module.FAULT, module.INTERRUPTED, module.BROKEN_PIPE, 0}
    table = TEXT.split("### Exit codes")[1].split("###")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)} == named


def test_links_lead_somewhere() -> None:
    anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", TEXT, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


@pytest.mark.parametrize(
    "call",
    [
        "documents",
        "sync docs",
        "search rent",
        "ask rent --behavior rents",
        "adapters",
        "gate rents",
        "doctor",
        "version",
        "behaviors list",
        "behaviors check rents",
        "evaluate answers --cases cases.jsonl --behavior rents --arms facts",
        "evaluate retrieval --queries q.jsonl --qrels r.tsv",
        "audit list",
        "audit show 01",
        "audit verify",
        "index status",
        "index rebuild",
        "models list",
        "models fetch",
    ],
)
def test_json_fields_are_documented(call: str, run: Run, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tuned)
    Path("docs").mkdir()
    Path("docs/a.md").write_text("A file to be synced.")
    Path("cases.jsonl").write_text(json.dumps(example(25)))
    Path("q.jsonl").write_text('{"id": "1", "text": "rent for flat 3"}')
    Path("r.tsv").write_text("1\tflat-3\t1\n")
    if call.startswith("audit"):
        run("ask", "rent", "--behavior", "rents")
    done = run(*call.split(), "--json")
    assert done.code in (0, 3), done.err
    verb = next(v for v in sorted(VERBS, key=len, reverse=True) if call.startswith(v))
    body = sections()[verb][1]
    for other in re.findall(r"as (?:for|under) `([a-z ]+)`", body):
        body += sections()[other][1]
    words = set(re.findall(r"[A-Za-z_0-9@]+", " ".join(re.findall(r"`([^`]+)`", body))))
    assert keys(done.json) - words == set()


def keys(value: Any) -> set[str]:
    """Names of the fields at the top, and in the hits, citations and metrics below."""
    if isinstance(value, list):
        return keys(value[0])
    found = set(value)
    for name in (
        "hits",
        "citations",
        "ms",
        "machine",
        "kv",
        "memory",
        "disk",
        "counts",
        "bytes",
        "chain",
        "comparisons",
        "adapter",
    ):
        if value.get(name) and not isinstance(value[name], str | int):
            found |= keys(value[name])
    return found | {name for arm in value.get("arms", {}).values() for name in arm}
