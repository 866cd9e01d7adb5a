"""Scope and versions on the command line: --as, --label, --where, --as-of, history, diff, restore."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run

ROWS = [
    {"id": "open", "text": "The zebra farm opened.", "metadata": {"year": 2025}},
    {"id": "closed", "text": "The zebra farm closed.", "metadata": {"year": 2024}, "access": ["board"]},
]


def add(run: Run, project: Path, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    (project / "scope.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(run("add", "--jsonl", project / "scope.jsonl", "--project", project, "--json").json)


def found(run: Run, project: Path, *options: str) -> set[str]:
    hits = run("search", "zebra farm", "-k", "100", *options, "--project", project, "--json").json["hits"]
    return {hit["document"] for hit in hits} & {"open", "closed"}


def test_principals_labels_and_filters(run: Run, project: Path) -> None:
    add(run, project, ROWS)
    (project / "access.toml").write_text("[principals]\nann = ['board']\nbob = []\n")
    assert found(run, project) == {"open", "closed"}
    assert found(run, project, "--as", "ann") == {"open", "closed"}
    assert found(run, project, "--as", "bob") == {"open"}
    assert found(run, project, "--label", "tax", "--label", "board") == {"open", "closed"}
    assert found(run, project, "--where", "year < 2025") == {"closed"}
    assert found(run, project, "--as", "bob", "--where", "year < 2025") == set()
    wrong = run("search", "zebra", "--as", "eve", "--project", project, "--json")
    assert (wrong.code, wrong.json["error"]["type"]) == (1, "AccessError")
    bad = run("search", "zebra", "--where", "year >", "--project", project, "--json")
    assert (bad.code, bad.json["error"]["type"]) == (1, "QueryError")
    assert "^" in bad.err
    shown = run("search", "zebra", "--where", "year = '2025'", "--project", project).out
    assert "note: year is never text" in shown
    settings = project / "factform.toml"
    settings.write_text(settings.read_text().replace("[facts]", "[facts]\naccess = 'required'"))
    assert run("search", "zebra", "--project", project).code == 1
    assert run("ask", "zebra", "--project", project).code == 1
    assert found(run, project, "--as", "bob") == {"open"}


def test_history_diff_restore_and_the_past(run: Run, project: Path) -> None:
    point = add(run, project, ROWS)[1]["point"]
    add(run, project, [{**ROWS[0], "text": "The zebra farm moved."}])
    run("remove", "closed", "--project", project)
    assert found(run, project) == {"open"}
    assert found(run, project, "--as-of", str(point)) == {"open", "closed"}
    past = ("search", "zebra", "--as-of", str(point), "--project", project)
    assert run(*past, "--json").json["point"] == point
    rows = run("history", "open", "--project", project, "--json").json
    assert [row["status"] for row in rows] == ["superseded", "indexed"]
    assert rows[0]["ended"] == rows[1]["began"]
    assert rows[0]["version"] in run("history", "open", "--project", project).out
    changed = run("diff", "open", "--project", project, "--json").json
    assert changed["hunks"][0]["lines"] == ["-The zebra farm opened.", "+The zebra farm moved."]
    assert "+The zebra farm moved." in run("diff", "open", "--project", project).out
    (receipt,) = run("restore", "open", rows[0]["version"], "--project", project, "--json").json
    assert (receipt["status"], receipt["version"]) == ("updated", rows[0]["version"])
    missing = run("restore", "open", "ffff", "--project", project, "--json")
    assert (missing.code, missing.json["error"]["type"]) == (1, "NotFound")
