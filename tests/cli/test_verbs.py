"""Every verb on a project of tiny random models: exit codes, the JSON programs build on, text for people."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from factform.form.gate import Scores, decide
from factform.project import Project
from factform.records import Scope, SearchResult

from .conftest import FLATS, Run, example, sentence, write_behavior

RATES = (
    *("valid", "exact_match", "token_f1", "field_accuracy", "source_right", "quote_precision"),
    *("refusal", "false_refusal", "prompt_tokens", "ms"),
)


# --- facts ----------------------------------------------------------------------------------


def test_init_makes_a_project_that_opens(run: Run, tmp_path: Path) -> None:
    made = run("init", "--project", tmp_path / "new", "--json")
    assert (made.code, made.json["project"]) == (0, str(tmp_path / "new"))
    assert Project.open(tmp_path / "new").settings.model.language == "smollm2-135m"
    again = run("init", "--project", tmp_path / "new", "--json")
    assert (again.code, again.json["error"]["type"]) == (1, "ProjectError")


def test_the_project_may_come_from_the_environment(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTFORM_PROJECT", str(project))
    assert len(run("documents", "--json").json) == len(FLATS)


def test_add_tells_created_unchanged_updated_and_failed(run: Run, project: Path) -> None:
    page = project / "documents" / "pets.md"
    page.parent.mkdir()
    page.write_text("# Pets\n\nA dog is welcome in flat 3.\n")
    first = run("add", page, "--project", project, "--json")
    assert first.code == 0
    (receipt,) = first.json
    assert set(receipt) == {"document", "version", "sha256", "chunks", "status", "visible_ms", "error", "note", "point"}
    assert (receipt["document"], receipt["status"], receipt["error"]) == ("documents/pets.md", "created", None)
    assert receipt["visible_ms"] > 0
    assert run("add", page, "--project", project, "--json").json[0]["status"] == "unchanged"
    page.write_text("# Pets\n\nA cat is welcome in flat 4.\n")
    assert run("add", page, "--project", project, "--json").json[0]["status"] == "updated"
    some = run("add", project / "none.pdf", page, "--project", project, "--json")
    assert some.code == 1
    assert [r["status"] for r in some.json] == ["failed", "unchanged"]
    assert "No such file" in some.json[0]["error"]
    shown = run("add", project / "none.pdf", page, "--project", project)
    assert shown.code == 1
    assert "No such file" in shown.out
    assert "2 documents: 1 failed, 1 unchanged" in shown.out


def test_a_bad_row_fails_alone_and_is_named_by_line(run: Run, project: Path) -> None:
    (project / "more.jsonl").write_text('{"id": "a", "text": "Bins are emptied."}\n{"id": 3, "text": "x"}\nnot json\n')
    done = run("add", "--jsonl", project / "more.jsonl", "--project", project, "--json")
    assert done.code == 1
    assert [(r["document"], r["status"]) for r in done.json] == [
        ("a", "created"),
        ("more.jsonl:2", "failed"),
        ("more.jsonl:3", "failed"),
    ]
    assert "'id'" in done.json[1]["error"]


def test_remove_hides_at_once_and_fails_for_what_is_not_there(run: Run, project: Path) -> None:
    done = run("remove", "flat-7", "nothing", "--project", project, "--json")
    assert done.code == 1
    assert [r["status"] for r in done.json] == ["removed", "failed"]
    found = run("search", "rent for flat 7", "--project", project, "--json").json["hits"]
    assert "flat-7" not in [hit["document"] for hit in found]
    assert "flat-7" not in run("documents", "--project", project).out.split()


def test_hits_are_flat_and_their_spans_exact(run: Run, project: Path) -> None:
    found = run("search", "monthly rent for flat 12", "-k", "3", "--project", project, "--json").json
    assert set(found) == {"hits", "ms", "notes", "point"}
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    best = found["hits"][0]
    assert (best["document"], best["title"], best["page"]) == ("flat-12", "Flat 12", None)
    assert sentence(12)[best["start"] : best["end"]] == best["text"]
    assert {"version", "chunk", "score", "scores", "heading", "sha256"} <= set(best)
    shown = run("search", "monthly rent for flat 12", "--project", project).out
    assert sentence(12) in shown


def test_index_status_and_rebuild(run: Run, project: Path) -> None:
    before = run("index", "status", "--project", project, "--json").json
    assert (before["documents"], before["consistent"]) == (len(FLATS), True)
    rebuilt = run("index", "rebuild", "--project", project, "--json")
    assert (rebuilt.code, rebuilt.json["documents"], rebuilt.json["failed"]) == (0, len(FLATS), [])
    assert "documents: 30" in run("index", "status", "--project", project).out
    assert "30 documents, 30 chunks" in run("index", "rebuild", "--project", project).out


def test_other_chunk_size_asks_for_a_rebuild(run: Run, project: Path) -> None:
    settings = project / "factform.toml"
    settings.write_text(settings.read_text().replace("[facts]", "[facts]\nchunk_tokens = 64"))
    stopped = run("search", "rent", "--project", project, "--json")
    assert (stopped.code, stopped.json["error"]["type"]) == (1, "SettingsError")
    assert "factform index rebuild" in stopped.err
    assert run("index", "rebuild", "--project", project, "--json").code == 0
    assert run("search", "rent", "--project", project, "--json").code == 0


# --- answers --------------------------------------------------------------------------------


def test_ask_cites_exact_spans_and_leaves_a_record(run: Run, project: Path) -> None:
    call = ("ask", "What is the rent for flat 12?", "--behavior", "rents", "--as", "tester", "--project", project)
    done = run(*call, "--json")
    found = done.json
    assert done.code == 0
    assert found["status"] == "answered"
    assert set(found["answer"]) == {"source", "quote", "rent"}
    assert (found["adapter"], found["behavior"], found["mode"]) == (None, "rents", "exact")
    assert {"search", "rerank", "first_token", "total"} <= set(found["ms"])
    assert found["prompt_tokens"] > 0
    assert found["completion_tokens"] > 0
    (citation,) = found["citations"]
    assert citation["verified"] is True
    assert sentence(12)[citation["start"] : citation["end"]] == citation["quote"] == found["answer"]["quote"]
    record = run("audit", "show", found["record"], "--project", project, "--json").json
    assert (record["principal"], record["answer"]) == ("tester", found["answer"])
    shown = run(*call).out
    for part in (f"“{citation['quote']}”", "flat-12 · [", "verified", "prompt tokens", "record "):
        assert part in shown


def test_ask_without_facts_sees_no_passage(run: Run, project: Path) -> None:
    call = ("ask", "rent for flat 12?", "--behavior", "rents", "--project", project, "--json")
    with_facts, without = run(*call).json, run(*call, "--no-facts").json
    assert without["citations"] == []
    assert without["prompt_tokens"] < with_facts["prompt_tokens"]


def test_a_question_without_behavior_is_answered_plainly(run: Run, project: Path) -> None:
    found = run("ask", "rent for flat 12?", "--project", project, "--json").json
    assert found["status"] in ("answered", "not_in_documents", "refused")
    assert found["behavior"] is None
    assert found["status"] != "answered" or "answer" in found["answer"]


def test_tuned_promoted_asked_and_rolled_back(run: Run, tuned: Path) -> None:
    here = ("--project", tuned, "--json")
    first, second = (adapter["name"] for adapter in run("adapters", "rents", *here).json)
    refused = run("promote", "rents", *here)
    assert (refused.code, refused.json["error"]["type"]) == (1, "RegistryError")
    assert "never gated" in refused.err
    assert "reason" in run("promote", "rents", "--force", *here).json["error"]["message"]
    promoted = run("promote", "rents", "--adapter", first, "--force", "--reason", "a test", *here).json
    assert (promoted["name"], promoted["promoted"]) == (first, True)
    ask = ("ask", "What is the rent for flat 12?", "--behavior", "rents", *here)
    adapted = run(*ask).json
    assert (adapted["adapter"], adapted["mode"]) == (first, "reuse")
    assert run(*ask, "--mode", "exact").json["mode"] == "exact"
    assert run(*ask, "--adapter", second).json["adapter"] == second
    bare = run(*ask, "--adapter", "none").json
    assert (bare["adapter"], bare["mode"]) == (None, "exact")
    assert bare["prompt_tokens"] > adapted["prompt_tokens"]  # the prompted base is sent the instructions
    only = run("rollback", "rents", *here)
    assert (only.code, only.json["error"]["type"]) == (1, "RegistryError")
    run("promote", "rents", "--adapter", second, "--force", "--reason", "a test", *here)
    assert run("rollback", "rents", *here).json["name"] == first
    assert [a["promoted"] for a in run("adapters", *here).json] == [True, False]
    assert first in run("adapters", "--project", tuned).out
    assert "yes" in run("adapters", "--project", tuned).out


# --- form -----------------------------------------------------------------------------------


def test_tune_reports_what_it_did(run: Run, project: Path) -> None:
    done = run("tune", "rents", "--steps", "1", "--seed", "3", "--project", project, "--json")
    found = done.json
    assert done.code == 0
    assert found["adapter"]["name"].startswith("rents@")
    assert (found["steps"], found["rows"]) == (1, 12)
    assert found["checks"][-1]["n"] == 4
    assert {"rows_by_origin", "refused", "first_loss", "last_loss", "seconds", "tokens_per_s"} <= set(found)
    assert found["adapter"]["lineage"]["settings"]["seed"] == 3


def test_training_looks_for_passages_as_answering_does(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same search, read by the evidence model where there is one: order and choice are what is learnt from."""
    searched: list[str] = []
    real = Project.search_and_weigh

    def noting(self: Project, question: str, scope: Scope) -> SearchResult:
        searched.append(question)
        return real(self, question, scope)

    monkeypatch.setattr(Project, "search_and_weigh", noting)
    assert run("tune", "rents", "--steps", "1", "--seed", "4", "--project", project, "--json").code == 0
    with Project.open(project) as opened:
        split = opened.split(opened.behavior("rents"))
    assert sorted(searched) == sorted(case.question for case in (*split.train, *split.check))  # each once


def test_the_gate_takes_no_adapter_of_another_behavior(run: Run, tuned: Path) -> None:
    name = run("adapters", "rents", "--project", tuned, "--json").json[0]["name"]
    write_behavior(tuned, "fees")
    done = run("gate", "fees", "--adapter", name, "--project", tuned, "--json")
    assert (done.code, done.json["error"]["type"]) == (1, "CaseError")
    assert "belongs to behavior 'rents'" in done.json["error"]["message"]
    nothing = run("gate", "fees", "--adapter", "promoted", "--project", tuned, "--json")
    assert (nothing.code, nothing.json["error"]["type"]) == (1, "RegistryError")


def test_a_behavior_folder_may_hold_a_link_to_nothing_and_one_that_is_no_folder_is_told(
    run: Run, project: Path
) -> None:
    here = ("--project", project)
    (project / "behaviors" / "rents" / ".#instructions.md").symlink_to("somebody@somewhere.42")  # an editor's lock
    assert run("behaviors", "check", "rents", *here, "--json").code == 0
    assert run("ask", "What is the rent for flat 3?", "--behavior", "rents", *here, "--json").code == 0
    shutil.rmtree(project / "behaviors")
    (project / "behaviors").write_text("")
    made = run("behaviors", "new", "returns", *here, "--json")
    assert (made.code, made.json["error"]["type"]) == (1, "BehaviorError")


def test_gate_exits_3_unless_it_says_promote(run: Run, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ("--project", tuned)
    done = run("gate", "rents", *here, "--json")
    assert (done.code, done.json["decision"]) == (3, "reject")  # eight held-out examples decide nothing
    assert done.json["n"] == 8
    assert {"adapter", "reasons", "comparisons", "arms", "margin", "enough", "min_cases", "seed"} <= set(done.json)
    assert any("at least 20 are needed" in reason for reason in done.json["reasons"])
    refused = run("promote", "rents", *here, "--json")
    assert "'reject'" in refused.json["error"]["message"]
    with Project.open(tuned) as project:
        info, _, report = project.gate("rents")
    names = tuple(str(i) for i in range(24))
    good, bad = Scores(names, *[(1.0,) * 24] * 3), Scores(names, *[(0.0,) * 24] * 3)
    monkeypatch.setattr(Project, "gate", lambda *_: (info, decide(good, bad), report))
    passed = run("gate", "rents", *here, "--json")
    assert (passed.code, passed.json["decision"]) == (0, "promote")
    assert "factform promote rents" in run("gate", "rents", *here).out


def test_behaviors_are_listed_checked_and_made(run: Run, project: Path) -> None:
    here = ("--project", project)
    made = run("behaviors", "new", "returns", *here, "--json")
    assert (made.code, made.json["problems"]) == (0, [])
    again = run("behaviors", "new", "returns", *here, "--json")
    assert (again.code, again.json["error"]["type"]) == (1, "BehaviorError")
    (project / "behaviors" / "returns" / "schema.json").write_text('{\n  "type": "object",\n  "properties": [\n}\n')
    listed = run("behaviors", "list", *here, "--json").json
    assert [(b["name"], bool(b["problems"])) for b in listed] == [("rents", False), ("returns", True)]
    checked = run("behaviors", "check", "returns", *here, "--json")
    assert checked.code == 1
    assert checked.json["problems"][0].startswith("schema.json:4: json:")
    assert "schema.json:4" in run("behaviors", "check", "returns", *here).out
    assert "24 examples, 6 cases" in run("behaviors", "check", "rents", *here).out
    assert "behaviors check returns" in run("behaviors", "list", *here).out
    sick = run("doctor", *here, "--json")
    assert sick.code == 1
    assert "schema.json:4" in sick.json["problems"][0]


# --- numbers --------------------------------------------------------------------------------


def test_evaluate_answers_gives_rates_with_intervals(run: Run, project: Path) -> None:
    cases = project / "cases.jsonl"
    rows = [{**example(25), "answers": ["875 euros"]}, {"id": "u", "question": "Who paints?", "answerable": False}]
    cases.write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ("evaluate", "answers", "--cases", cases, "--behavior", "rents", "--project", project)
    done = run(*call, "--out", project / "report.json", "--json")
    assert done.code == 0
    assert (done.json["n"], list(done.json["arms"])) == (2, ["base", "facts"])  # nothing is promoted
    for arm in done.json["arms"].values():
        assert set(RATES) <= set(arm)
        assert_rate(arm["valid"])
        assert_rate(arm["refusal"])
    report = json.loads((project / "report.json").read_text())
    assert report["arms"] == done.json["arms"]
    assert len(report["rows"]) == 4
    assert "environment" in report
    one = run(*call, "--arms", "facts", "--limit", "1", "--no-free", "--rows", "--json").json
    assert (one["n"], list(one["arms"]), len(one["rows"])) == (1, ["facts"], 1)
    assert one["arms"]["facts"]["refusal"] is None
    assert "in contract, released" in run(*call, "--arms", "facts", "--limit", "1").out


def test_all_four_arms_where_an_adapter_is_promoted(run: Run, tuned: Path) -> None:
    run("promote", "rents", "--force", "--reason", "a test", "--project", tuned)
    cases = tuned / "behaviors" / "rents" / "cases.jsonl"
    call = (
        "evaluate",
        "answers",
        "--cases",
        cases,
        "--behavior",
        "rents",
        "--limit",
        "1",
        "--project",
        tuned,
        "--json",
    )
    arms = run(*call).json["arms"]
    assert list(arms) == ["base", "facts", "form", "both"]
    assert arms["both"]["prompt_tokens"]["value"] < arms["facts"]["prompt_tokens"]["value"]


def assert_rate(rate: dict[str, Any]) -> None:
    assert {"value", "low", "high", "n"} <= set(rate)
    assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1


def test_evaluate_retrieval_reads_beir_files_and_drops_the_query_itself(run: Run, project: Path) -> None:
    queries, qrels = project / "q.jsonl", project / "r.tsv"
    queries.write_text('{"_id": "flat-12", "text": "rent for flat 12"}\n{"_id": "q2", "text": "rent for flat 30"}\n')
    qrels.write_text("query_id\tdoc_id\tscore\nflat-12\tflat-12\t1\nq2\tflat-30\t1\n")
    call = ("evaluate", "retrieval", "--queries", queries, "--qrels", qrels, "--project", project)
    found = run(*call, "--json").json
    assert found["n"] == 2
    assert found["ndcg@10"]["value"] == 0.5  # flat-30 is first for q2; flat-12 may not find itself
    assert {"recall@100", "mrr@10", "ms"} <= set(found)
    assert {"p50", "p95"} <= set(found["ms"])
    assert "ndcg@10" in run(*call, "--out", project / "out.json").out
    assert len(json.loads((project / "out.json").read_text())["rows"]) == 2


# --- records, models, health ----------------------------------------------------------------


def test_audit_lists_shows_and_notices_a_change(run: Run, project: Path) -> None:
    here = ("--project", project)
    for flat in (3, 4):
        run("ask", f"rent for flat {flat}?", "--behavior", "rents", *here)
    newest, oldest = run("audit", "list", *here, "--json").json
    assert newest["question"] == "rent for flat 4?"
    assert run("audit", "list", "--before", newest["id"], *here, "--json").json == [oldest]
    assert len(run("audit", "list", "--limit", "1", *here, "--json").json) == 1
    record = run("audit", "show", newest["id"], *here, "--json").json
    assert record["candidates"][0]["kept"] is True
    assert "the prompt holds 1" in run("audit", "show", newest["id"], *here).out
    assert "rent for flat 4?" in run("audit", "list", *here).out
    sound = run("audit", "verify", *here, "--json").json
    assert (sound["records"], sound["problems"]) == (2, [])
    assert run("audit", "verify", "--head", sound["head"], *here).code == 0
    other = run("audit", "verify", "--head", f"2:{'0' * 64}", *here, "--json")
    assert other.code == 1
    assert "not the one kept elsewhere" in other.json["problems"][0]


def test_models_are_listed_and_fetched(
    run: Run, project: Path, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path / "cache"))
    fetched = run("models", "fetch", "--verify", "--project", project, "--json").json
    assert fetched[0]["name"] == str(tiny_dir)
    assert len(fetched) == 2
    listed = run("models", "list", "--json").json
    assert {"name", "folder", "size", "digest", "revision", "cached"} == set(listed[0])
    assert {m["name"]: m["cached"] for m in listed} == {
        **{m["name"]: True for m in fetched},
        "smollm2-135m": False,
        "minilm-l6": False,
    }
    assert "not fetched yet" in run("models", "list").out
    assert str(tiny_dir) in run("models", "fetch", tiny_dir).out


def test_doctor_and_version(run: Run, project: Path) -> None:
    well = run("doctor", "--project", project, "--json")
    assert (well.code, well.json["problems"]) == (0, [])
    assert well.json["facts"]["consistent"] is True
    assert "no problems" in run("doctor", "--project", project).out
    found = run("version", "--json").json
    assert set(found) == {"factform", "python", "packages"}
    assert found["factform"] in run("version").out


def test_a_behavior_edited_between_two_questions_is_read_again(project: Path) -> None:
    with Project.open(project) as opened:
        name = opened.behaviors()[0]
        folder = project / "behaviors" / name
        for path in folder.iterdir():
            os.utime(path, (1e9, 1e9))
        first = opened.behavior(name)
        assert opened.behavior(name) is first
        text = folder / "instructions.md"
        text.write_text(text.read_text("utf-8") + "\nOne rule more.\n", "utf-8")
        assert "One rule more." in opened.behavior(name).instructions
