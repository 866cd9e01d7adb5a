"""What goes wrong says what, which value and what to do; in JSON mode stdout still holds exactly one JSON value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factform.cli import main
from factform.project import Project

from .conftest import Run


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["ask", "Rent?", "--behavior", "nobody"], "BehaviorError", ["behaviors/nobody", "there are rents"]),
        (["tune", "nobody"], "BehaviorError", ["behaviors/nobody"]),
        (["ask", "Rent?", "--behavior", "rents", "--adapter", "beef00"], "RegistryError", ["'beef00'", "tune"]),
        (["ask", "Rent?", "--adapter", "beef00"], "CaseError", ["'beef00'", "--behavior"]),
        (["ask", "  "], "CaseError", ["question is empty"]),
        (["ask", "x " * 3000], "ContextTooLong", ["6264 tokens", "2048"]),
        (["gate", "rents"], "RegistryError", ["factform tune rents"]),
        (["promote", "rents"], "RegistryError", ["factform tune rents"]),
        (["rollback", "rents"], "RegistryError", ["none was ever promoted"]),
        (["audit", "show", "01XYZ"], "RecordError", ["'01XYZ'", "audit list"]),
        (["models", "fetch", "no such model"], "FetchError", ["'no such model'", "smollm2-135m"]),
        (["evaluate", "answers", "--cases", "none.jsonl"], "CaseError", ["none.jsonl", "No such file"]),
    ],
)
def test_errors_name_the_value_and_the_way_on(
    run: Run, project: Path, arguments: list[str], kind: str, words: list[str]
) -> None:
    done = run(*arguments, "--project", project, "--json")
    assert done.code == 1
    assert set(done.json) == {"error"}
    assert done.json["error"]["type"] == kind
    for word in words:
        assert word in done.json["error"]["message"]
        assert word in done.err
    plain = run(*arguments, "--project", project)
    assert (plain.code, plain.out) == (1, "")
    assert plain.err.startswith("error: ")


def test_no_project_says_how_to_make_one(run: Run, tmp_path: Path) -> None:
    done = run("search", "x", "--project", tmp_path / "nowhere", "--json")
    assert (done.code, done.json["error"]["type"]) == (1, "ProjectError")
    assert "factform init --project" in done.err


def test_a_project_cannot_be_made_inside_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = run("init", "--project", tmp_path / "file" / "project", "--json")
    assert (done.code, done.json["error"]["type"]) == (1, "ProjectError")
    assert "Not a directory" in done.err


def test_a_wrong_setting_is_named(run: Run, project: Path) -> None:
    (project / "factform.toml").write_text("[facts]\npasages = 3\n")
    done = run("search", "x", "--project", project, "--json")
    assert (done.code, done.json["error"]["type"]) == (1, "SettingsError")
    assert "facts.pasages" in done.err


def test_malformed_schema_and_example_are_named_by_file_line_and_field(run: Run, project: Path) -> None:
    folder = project / "behaviors" / "rents"
    lines = (folder / "examples.jsonl").read_text().splitlines()
    row = json.loads(lines[1])
    row["expected"]["rent"] = 714
    lines[1], lines[4] = json.dumps(row), '{"id": "e5", "qestion": "?"}'
    (folder / "examples.jsonl").write_text("\n".join(lines))
    schema = folder / "schema.json"
    schema.write_text(
        schema.read_text().replace('"type": "string",\n      "pattern"', '"type": "strng",\n      "pattern"')
    )
    done = run("ask", "Rent?", "--behavior", "rents", "--project", project, "--json")
    assert (done.code, done.json["error"]["type"]) == (1, "BehaviorError")
    problems = done.json["error"]["problems"]
    assert any(p.startswith("schema.json:13: properties.rent.type") for p in problems), problems
    assert any(p.startswith("examples.jsonl:5: qestion: unknown key") for p in problems), problems
    schema.write_text(schema.read_text().replace("strng", "string"))
    again = run("ask", "Rent?", "--behavior", "rents", "--project", project, "--json").json["error"]["problems"]
    assert any(p.startswith("examples.jsonl:2: expected.rent") for p in again), again


def test_a_malformed_case_is_named_by_line_and_field(run: Run, project: Path) -> None:
    (project / "bad.jsonl").write_text('{"id": "1", "question": "x", "answers": ["y"]}\n{"id": "2", "answers": "y"}\n')
    done = run("evaluate", "answers", "--cases", project / "bad.jsonl", "--project", project, "--json")
    assert "bad.jsonl:2: question: is missing" in done.json["error"]["message"]
    assert "bad.jsonl:2: answers: must be a list" in done.err


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("language", "config.json"),
        ("language", "tokenizer.json"),
        ("language", "model.safetensors"),
        ("embedder", "config.json"),
        ("embedder", "tokenizer.json"),
        ("embedder", "model.safetensors"),
    ],
)
def test_a_damaged_model_file_is_an_error_not_a_fault(
    run: Run, project: Path, tmp_path: Path, file: str, key: str
) -> None:
    settings = (project / "factform.toml").read_text()
    line = next(line for line in settings.splitlines() if line.startswith(key))
    good, bad = Path(json.loads(line.split("=", 1)[1])), tmp_path / "damaged"
    bad.mkdir()
    for path in good.iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    (bad / file).write_bytes((bad / file).read_bytes()[:-40])
    (project / "factform.toml").write_text(settings.replace(str(good), str(bad)))
    done = run("ask", "Rent?", "--project", project, "--json")
    assert done.code == 1, done.err
    assert done.json["error"]["type"] == "ModelError"
    assert str(bad) in done.err


def test_a_damaged_adapter_is_refused_with_both_digests(run: Run, tuned: Path) -> None:
    here = ("--project", tuned, "--json")
    first = run("adapters", *here).json[0]
    tensors = tuned / ".factform" / "adapters" / first["digest"] / "adapter.safetensors"
    tensors.chmod(0o644)
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    done = run("ask", "Rent?", "--behavior", "rents", "--adapter", first["name"], *here)
    assert (done.code, done.json["error"]["type"]) == (1, "RegistryError")
    assert first["lineage"]["tensors"] in done.err
    assert "was changed" in run("doctor", *here).json["problems"][0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["serch", "x"],
        ["search"],
        ["search", "x", "-k", "0"],
        ["add"],
        ["ask", "x", "--mode", "fast"],
        ["audit", "verify", "--head", "12"],
        ["evaluate", "answers"],
        ["search", "x", "--jsn"],
    ],
)
def test_wrong_usage_exits_2(run: Run, project: Path, arguments: list[str]) -> None:
    done = run(*arguments, "--project", project)
    assert (done.code, done.out) == (2, "")
    assert "Error" in done.err
    as_json = run(*arguments, "--json")
    assert (as_json.code, as_json.json["error"]["type"]) == (2, "UsageError")


def test_unknown_arm_and_arm_without_adapter(run: Run, project: Path) -> None:
    cases = project / "behaviors" / "rents" / "cases.jsonl"
    call = ("evaluate", "answers", "--cases", cases, "--behavior", "rents", "--project", project, "--arms")
    assert "'bose'" in run(*call, "base,bose").err
    assert "needs a promoted adapter" in run(*call, "both").err


def test_interruption_says_how_to_go_on(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Project, "tune", interrupted)
    monkeypatch.setattr(Project, "search", interrupted)
    done = run("tune", "rents", "--project", project, "--json")
    assert (done.code, done.json["error"]["type"]) == (130, "Interrupted")
    assert done.err.count("\n") == 1
    assert "goes on from there" in done.err
    assert run("search", "x", "--project", project).code == 130


def test_a_fault_shows_its_place_and_no_text(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("the secret text of a document")

    monkeypatch.setattr(Project, "search", broken)
    done = run("search", "x", "--project", project, "--json")
    assert (done.code, done.json["error"]["type"]) == (70, "ValueError")
    assert "FACTFORM_DEBUG=1" in done.err
    assert "secret" not in done.err + done.out
    monkeypatch.setenv("FACTFORM_DEBUG", "1")
    assert "Traceback" in run("search", "x", "--project", project).err


def test_document_text_cannot_steer_the_terminal(run: Run, project: Path) -> None:
    text = "The [red]bell[/red] rings \x1b[2J\x1b]0;title\x07 twice."
    (project / "odd.jsonl").write_text(json.dumps({"id": "odd\x1b[31m", "text": text}) + "\n")
    assert run("add", "--jsonl", project / "odd.jsonl", "--project", project).code == 0
    for call in (["search", "bell rings twice"], ["documents"], ["ask", "Which bell rings?", "--behavior", "rents"]):
        done = run(*call, "--project", project)
        assert "\x1b" not in done.out
        assert "odd" in done.out
    assert "[red]bell[/red]" in run("search", "bell rings twice", "--project", project).out
    hit = run("search", "bell rings twice", "-k", "1", "--project", project, "--json").json["hits"][0]
    assert hit["text"] == text


def test_odd_names_and_questions_are_no_fault(run: Run, project: Path) -> None:
    done = run("add", b"\xff\xfe.md".decode("utf-8", "surrogateescape"), "--project", project, "--json")
    assert (done.code, done.json[0]["status"]) == (1, "failed")
    assert run("search", "rent \udcff flat", "--project", project, "--json").code == 0
    assert run("search", "--project", project, "--json", "--", "--json").code == 0


def test_a_reader_that_went_away_is_no_fault(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("factform.cli.system.emit", gone)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert main(["version"]) == 141
