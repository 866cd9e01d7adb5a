"""Why something was found, and fitting the search, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run


def test_explain_tells_of_every_candidate(run: Run, project: Path) -> None:
    plain = run("search", "rent for flat 7", "-k", 2, "--project", project, "--json").json
    assert set(plain) == {"hits", "ms", "notes", "point"}
    told = run("search", "rent for flat 7", "-k", 2, "--explain", "--project", project, "--json").json
    assert [hit["chunk"] for hit in told["hits"]] == [hit["chunk"] for hit in plain["hits"]]
    assert len(told["dropped"]) >= 20
    assert all(hit["reason"] and not hit["kept"] and hit["ranks"]["fused"] for hit in told["dropped"])
    assert not any("text" in hit for hit in told["dropped"])
    assert told["ranking"]["rerank"] == "maxsim"
    shown = run("search", "rent for flat 7", "-k", 2, "--explain", "--project", project).out
    assert "maxsim" in shown
    assert "2 were asked for" in " ".join(shown.split())
    assert f"2 of {2 + len(told['dropped'])} candidates" in shown


def test_copies_are_left_out_when_asked(run: Run, project: Path) -> None:
    rows = [{"id": name, "text": "The caretaker has a spare key to every cellar."} for name in ("one", "two")]
    (project / "copies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("add", "--jsonl", project / "copies.jsonl", "--project", project).code == 0
    asked = ("search", "spare key cellar caretaker", "-k", 5, "--project", project, "--json")
    both = {hit["document"] for hit in run(*asked).json["hits"]}
    assert {"one", "two"} <= both
    told = run(*asked, "--distinct", "--explain").json
    assert len({"one", "two"} & {hit["document"] for hit in told["hits"]}) == 1
    assert any(hit["reason"].startswith("near duplicate of") for hit in told["dropped"])


def test_tune_retrieval_says_when_nothing_is_better(run: Run, project: Path) -> None:
    rows = [
        {"id": f"c{i}", "question": f"What is the rent for flat {i}?", "answers": ["x"], "documents": [f"flat-{i}"]}
        for i in range(1, 13)
    ]
    cases = project / "search.jsonl"
    cases.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = (project / "factform.toml").read_text()
    done = run("tune", "retrieval", "--cases", cases, "--apply", "--project", project, "--json")
    assert done.code == 0
    assert (done.json["n"], done.json["folds"]) == (12, 5)
    assert done.json["applied"] is done.json["better"]
    assert ((project / "factform.toml").read_text() != before) is done.json["applied"]
    shown = run("tune", "retrieval", "--cases", cases, "--project", project).out
    assert ("as good" in shown) is not done.json["better"]
    assert run("tune", "desk", "--cases", cases, "--project", project).code == 2
    assert run("tune", "desk", "--apply", "--project", project).code == 2
