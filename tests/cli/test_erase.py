"""A document erased from a whole project: question, answer, record, caches; grepped for in every file."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run, sentence

CANARIES = ("Qzxkavurble", "Titlequorvex", "Idplurquaz", "Questiongrolf")


def places(project: Path) -> dict[str, set[str]]:
    """Canaries by the file they stand in, in any case and encoding."""
    found: dict[str, set[str]] = {}
    for path in project.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        for canary in CANARIES:
            for word in (canary, canary.lower()):
                named = word in str(path.relative_to(project))
                if named or any(word.encode(code) in data for code in ("utf-8", "utf-16-le", "utf-16-be")):
                    found.setdefault(str(path.relative_to(project)), set()).add(canary)
    return found


def test_nothing_of_it_is_left_in_the_project(run: Run, project: Path) -> None:
    here = ("--project", project)
    page = project / "Idplurquaz.md"
    page.write_text("# Titlequorvex\n\nThe monthly rent of Qzxkavurble is 999 euros.\n")
    with (project / "factform.toml").open("a") as toml:
        toml.write("\n")
    run("add", page, *here)
    page.unlink()
    assert run("ask", "What is the monthly rent of Qzxkavurble, Questiongrolf?", *here).code == 0
    assert run("ask", "What is the rent for flat 3?", *here).code == 0
    (project / ".factform" / "training" / "x").mkdir(parents=True)
    (project / ".factform" / "training" / "x" / "rows.jsonl").write_text("Qzxkavurble")
    before = places(project)
    assert set.union(*before.values()) == set(CANARIES)
    assert any("audit.db" in place for place in before)
    refused = run("erase", "Idplurquaz.md", *here, "--json")
    assert (refused.code, refused.json["error"]["type"]) == (2, "UsageError")
    done = run("erase", "Idplurquaz.md", "--yes", *here, "--json")
    assert done.code == 0, done.err
    assert (done.json["documents"], done.json["versions"]) == (["Idplurquaz.md"], 1)
    assert done.json["records_erased"] >= 1  # the other question may have weighed it too
    assert done.json["folders"] == ["cache", "training"]
    assert any("backups" in told for told in done.json["not_reached"])
    assert places(project) == {}
    assert run("audit", "verify", *here, "--json").json["problems"] == []
    statuses = [line["status"] for line in run("audit", "list", *here, "--json").json]
    assert sorted(statuses)[-2:] == ["erased", "erasure"] or {"erased", "erasure"} <= set(statuses)
    assert run("audit", "list", *here).code == 0
    erased = next(line["id"] for line in run("audit", "list", *here, "--json").json if line["status"] == "erased")
    assert run("audit", "show", erased, *here).code == 0
    assert run("doctor", *here, "--json").json["problems"] == []
    assert sentence(3) in run("search", "flat 3", *here).out
    again = run("erase", "Idplurquaz.md", "--yes", *here, "--json")
    assert (again.code, again.json["error"]["type"]) == (1, "NotFound")


def test_an_interrupted_erasure_is_finished_at_the_next_verb(run: Run, project: Path) -> None:
    from factform.project import Project

    page = project / "Idplurquaz.md"
    page.write_text("# Titlequorvex\n\nThe monthly rent of Qzxkavurble is 999 euros.\n")
    run("add", page, "--project", project)
    with Project.open(project) as opened:
        opened.facts.eraser().begin(["Idplurquaz.md"])  # and here the process dies
    done = run("search", "Qzxkavurble", "--project", project, "--json")
    assert "an erasure that was interrupted is finished now: 1 stored files deleted" in done.err
    assert "Idplurquaz.md" not in {hit["document"] for hit in done.json["hits"]}
    assert "interrupted" not in run("search", "Qzxkavurble", "--project", project, "--json").err
    assert set(places(project)) == {"Idplurquaz.md"}  # the user's own file, which the receipt names


def test_a_name_too_long_for_a_file_is_erased_as_well(run: Run, project: Path) -> None:
    """Where the file might be cannot even be asked about: that must stop no erasure, nor the project's next opening."""
    here, name = ("--project", project), "x" * 300
    rows = project / "rows.jsonl"
    rows.write_text(json.dumps({"id": name, "text": "The monthly rent of Qzxkavurble is 999 euros."}) + "\n")
    run("add", "--jsonl", rows, *here)
    rows.unlink()
    done = run("erase", name, "--yes", *here, "--json")
    assert (done.code, done.json["documents"]) == (0, [name])
    assert run("documents", *here, "--json").code == 0
