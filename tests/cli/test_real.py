"""The command line as a program of its own: the real default models, and Ctrl-C in the middle of work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factform.project import Project

from .conftest import FLATS, REAL_CACHE, Run

pytestmark = pytest.mark.slow

ROWS = [
    {
        "id": "garage",
        "title": "Garage rules",
        "text": "The garage closes at 22:00. A parking space costs 65 euros a month.",
    },
    {"id": "laundry", "title": "Laundry room", "text": "One wash costs 2.50 euros. The laundry room is in the cellar."},
    {"id": "lift", "title": "Lift", "text": "The lift is inspected every 12 months and carries at most 8 persons."},
]


def program(*arguments: str | Path, code: int = 0) -> Any:
    """What `factform … --json` prints, as another program sees it."""
    command = [sys.executable, "-m", "factform", *map(str, arguments), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == code, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.timeout(900)
def test_promised_json_on_the_default_models(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other programs build on, with the models fetched as for any user; one process, so that torch starts once."""

    def program(*arguments: str | Path, code: int = 0) -> Any:
        done = run(*arguments, "--json")
        assert done.code == code, done.err
        return done.json

    monkeypatch.delenv("FACTFORM_CACHE")
    if REAL_CACHE:
        monkeypatch.setenv("FACTFORM_CACHE", REAL_CACHE)
    here = ("--project", tmp_path / "house")
    program("init", *here)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    receipts = program("add", "--jsonl", rows, *here)
    assert [(r["document"], r["status"], r["error"]) for r in receipts] == [
        (row["id"], "created", None) for row in ROWS
    ]
    assert {r["status"] for r in program("add", "--jsonl", rows, *here)} == {"unchanged"}
    changed = {**ROWS[1], "text": ROWS[1]["text"].replace("2.50", "3.10")}
    rows.write_text(json.dumps(changed) + "\n")
    (updated,) = program("add", "--jsonl", rows, *here)
    assert updated["status"] == "updated"
    assert updated["visible_ms"] < 2000
    best = program("search", "What does a wash cost?", "-k", "2", *here)["hits"][0]
    assert best["document"] == "laundry"
    assert best["text"] == changed["text"][best["start"] : best["end"]]
    assert "3.10" in best["text"]
    texts = {row["id"]: row["text"] for row in (*ROWS, changed)}
    for question in ("What does a parking space cost?", "How often is the lift inspected?"):
        found = program("ask", question, *here)
        assert found["status"] in ("answered", "not_in_documents", "refused")
        assert found["status"] != "answered" or found["citations"]
        for c in found["citations"]:
            assert c["verified"] is True
            assert texts[c["document"]][c["start"] : c["end"]] == c["quote"]
        assert program("audit", "show", found["record"], *here)["question"] == question
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "parking space price"}\n')
    (tmp_path / "r.tsv").write_text("query_id\tdoc_id\tscore\n1\tgarage\t1\n")
    report = program("evaluate", "retrieval", "--queries", tmp_path / "q.jsonl", "--qrels", tmp_path / "r.tsv", *here)
    assert report["ndcg@10"]["value"] == 1.0
    (tmp_path / "k.jsonl").write_text(
        '{"id": "1", "question": "When does the garage close?", "answers": ["22:00"], "documents": ["garage"]}\n'
        '{"id": "2", "question": "Who owns the house?", "answerable": false}\n'
    )
    arms = program("evaluate", "answers", "--cases", tmp_path / "k.jsonl", *here)["arms"]
    assert list(arms) == ["base", "facts"]
    assert arms["facts"]["quote_verbatim"] is None or arms["facts"]["quote_verbatim"]["value"] == 1.0
    assert [r["status"] for r in program("add", tmp_path / "none.pdf", *here, code=1)] == ["failed"]
    assert program("doctor", *here)["problems"] == []


LISTENING = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "runpy.run_module('factform', run_name='__main__', alter_sys=True)"
)
"""`python -m factform` that heeds Ctrl-C: a test run in the background ignores it, and a child inherits that."""


def interrupt(arguments: list[str], when: Callable[[], bool]) -> tuple[int, Any, str]:
    """Start the program, send it Ctrl-C as soon as `when` holds, and give back what it left."""
    command = [sys.executable, "-c", LISTENING, *arguments, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        until = time.monotonic() + 120
        while not when() and ran.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        ran.send_signal(signal.SIGINT)
        out, err = ran.communicate(timeout=120)
    return ran.returncode, json.loads(out), err


def test_an_interrupted_tuning_goes_on_from_its_checkpoint(project: Path) -> None:
    training = project / ".factform" / "training"
    command = ["tune", "rents", "--steps", "400", "--project", str(project)]
    code, said, err = interrupt(command, lambda: any(training.glob("*/checkpoint.json")))
    assert (code, said["error"]["type"]) == (130, "Interrupted")
    assert "Traceback" not in err
    (checkpoint,) = training.glob("*/checkpoint.json")
    before = json.loads(checkpoint.read_text())
    assert 0 < before["step"] < 400
    with Project.open(project) as again:
        assert again.adapters() == []
        steps = []
        again.report = lambda stage, done, total, note: steps.append(done) if stage == "train" else None
        report = again.tune("rents", steps=400)
    assert steps[0] == before["step"] + 1
    assert report.steps == 400
    assert report.first_loss == before["losses"][0]


def test_an_interrupted_add_leaves_a_sound_store(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(400):
        (folder / f"{number}.md").write_text(f"# Note {number}\n\n" + f"Shelf {number} holds the box. " * 30)
    command = ["add", str(folder), "--project", str(project)]
    blobs = project / ".factform" / "blobs"
    code, said, _ = interrupt(command, lambda: sum(1 for p in blobs.rglob("*") if p.is_file()) > 2 * len(FLATS) + 40)
    assert (code, said["error"]["type"]) == (130, "Interrupted")
    status = program("index", "status", "--project", project)
    assert status["consistent"] is True
    assert status["pending"] == 0
    assert len(FLATS) <= status["documents"] < len(FLATS) + 400
    receipts = program(*command)
    assert len(receipts) == 400
    assert {r["status"] for r in receipts} == {"created", "unchanged"}
    assert program("index", "status", "--project", project)["documents"] == len(FLATS) + 400
