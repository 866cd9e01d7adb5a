"""A whole project whose old versions are pruned, and whose index changes its embedder while it is used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from factform.audit.log import AuditLog
from factform.errors import SettingsError
from factform.facts import rebuild
from factform.project import Project

from .conftest import FLATS, Run, sentence


def set_key(project: Path, section: str, line: str) -> None:
    path = project / "factform.toml"
    path.write_text(path.read_text().replace(f"[{section}]", f"[{section}]\n{line}"))


def test_old_versions_are_pruned_but_what_an_answer_cites(run: Run, project: Path) -> None:
    here = ("--project", project)
    page = project / "note.md"
    for body in ("Qzxkavurble stays.", "Wvyntrobal stays.", "Now it is gone."):
        page.write_text(body)
        assert run("add", page, *here).code == 0
    assert "every version is kept" in run("prune", *here).out
    set_key(project, "facts", "keep_versions = 1")
    cited = run("ask", "What is the rent for flat 3?", "--behavior", "rents", *here, "--json").json["citations"]
    assert [c["document"] for c in cited] == ["flat-3"]
    rows = [{"id": "flat-3", "title": "Flat 3", "text": "The monthly rent for flat 3 is 999 euros."}]
    (project / "more.jsonl").write_text(json.dumps(rows[0]))
    assert run("add", "--jsonl", project / "more.jsonl", *here).code == 0
    foreseen = run("prune", "--dry-run", *here, "--json").json
    assert (foreseen["dry_run"], len(foreseen["versions"]), foreseen["files"]) == (True, 2, 2)
    assert [v["document"] for v in foreseen["cited"]] == ["flat-3"]
    assert "a dry run: nothing was changed" in run("prune", "--dry-run", *here).out
    done = run("prune", *here, "--json").json
    assert [(v["document"], v["cited"]) for v in done["versions"] + done["cited"]] == [
        ("note.md", False),
        ("note.md", False),
        ("flat-3", True),
    ]
    data = b"".join(path.read_bytes() for path in (project / ".factform").rglob("*") if path.is_file())
    assert b"Qzxkavurble" not in data
    assert b"Wvyntrobal" not in data
    told = run("history", "note.md", *here, "--json").json
    assert [row["pruned_at"] is None for row in told] == [False, False, True]
    assert "superseded, pruned 20" in run("history", "note.md", *here).out
    stopped = run("restore", "note.md", told[0]["version"], *here, "--json")
    assert (stopped.code, stopped.json["error"]["type"]) == (1, "Pruned")
    past = run("search", "note", "--as-of", told[0]["began"], *here, "--json")
    assert (past.code, past.json["error"]["type"]) == (1, "Pruned")
    assert run("doctor", *here, "--json").json["problems"] == []
    backup = run("backup", "make", project.parent / "b.tar", *here, "--json").json
    assert backup["damaged"] == []
    set_key(project, "facts", "keep_cited = false")
    assert [v["document"] for v in run("prune", *here, "--json").json["versions"]] == ["flat-3"]


def test_a_damaged_record_may_cite_anything(run: Run, project: Path) -> None:
    here = ("--project", project)
    set_key(project, "facts", "keep_versions = 1")
    assert run("ask", "What is the rent for flat 3?", "--behavior", "rents", *here).code == 0
    with AuditLog.open(project / ".factform" / "audit.db")._connection() as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f'DROP TRIGGER "{name}"')
        db.execute("UPDATE record SET record = '{}'")
    stopped = run("prune", *here, "--json")
    assert (stopped.code, stopped.json["error"]["type"]) == (1, "RecordError")
    set_key(project, "facts", "keep_cited = false")
    assert run("prune", *here).code == 0


class Stopped(Exception):
    pass


def test_another_embedder_takes_over_in_the_background(
    run: Run, project: Path, tiny_embedder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "GROUP_DOCUMENTS", 10)
    here = ("--project", project)
    other = Path(shutil.copytree(tiny_embedder_dir, project.parent / "other"))
    (other / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    before = run("index", "status", *here, "--json").json
    assert before["rebuild"] is None
    settings = project / "factform.toml"
    settings.write_text(settings.read_text().replace(str(tiny_embedder_dir), str(other)))
    refused = run("search", "rent", *here, "--json")
    assert (refused.code, refused.json["error"]["type"]) == (1, "SettingsError")
    assert "factform index rebuild --background" in refused.json["error"]["message"]

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if stage == "rebuild" and done == 20:
            raise Stopped

    with Project.open(project, stop) as rebuilding, pytest.raises(Stopped):
        rebuilding.rebuild_index(background=True)
    # Begun and left: who opens the project now uses what the index was made with.
    status = run("index", "status", *here, "--json").json
    assert (status["embedder"], status["rebuild"]["running"]) == (before["embedder"], False)
    assert (status["rebuild"]["done"], status["rebuild"]["documents"]) == (10, len(FLATS))
    assert sentence(7) in run("search", "flat 7", *here).out
    assert run("doctor", *here, "--json").json["problems"] == []
    with Project.open(project) as using:
        assert using.search("flat 9", k=1).hits[0].chunk.document == "flat-9"
        (project / "late.md").write_text("A giraffe moved into flat 31.")
        assert using.add([project / "late.md"])[0].status == "created"
        report = using.rebuild_index(background=True)
        assert (report["documents"], report["failed"]) == (len(FLATS) + 1, [])
        assert using.search("giraffe", k=1).hits[0].chunk.document == "late.md"  # with the new one
    status = run("index", "status", *here, "--json").json
    assert (status["rebuild"], status["consistent"]) == (None, True)
    assert status["embedder"] != before["embedder"]
    assert run("index", "rebuild", "--drop", *here, "--json").json == {"dropped": False}
    settings.write_text(settings.read_text().replace(str(other), str(tiny_embedder_dir)))
    with Project.open(project) as back, pytest.raises(SettingsError, match="index rebuild --background"):
        back.search("rent")
