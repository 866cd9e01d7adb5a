"""Encoded passages follow their documents: gone with them, encoded ahead where that is wanted, reported by doctor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from factform.cli import main
from factform.errors import StoreError
from factform.ids import sha256_text
from factform.model.prompt import passage_block
from factform.project import Project
from factform.records import Source

RENT, DEPOSIT, BOILER = "The rent is 1,480 euros.", "The deposit is two rents.", "The boiler is serviced every year."


@pytest.fixture
def opened(
    tmp_path: Path, tiny_dir: Path, tiny_embedder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Project]:
    """Opens the same project with the settings given."""
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path / "cache"))

    def open_(**model: Any) -> Project:
        values = {"language": str(tiny_dir), "embedder": str(tiny_embedder_dir), "dtype": "float32", **model}
        (tmp_path / "project").mkdir(exist_ok=True)
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        (tmp_path / "project" / "factform.toml").write_text(f"[model]\n{lines}[answer]\nmax_tokens = 8\n")
        return Project.open(tmp_path / "project")

    return open_


def add(project: Project, document: str, *paragraphs: str, title: str = "Lease") -> str:
    source = Source(document, "\n\n".join(paragraphs).encode(), f"{document}.txt", "text", title)
    return project.add_sources([source])[0].status


def ask(project: Project, question: str = "What is the rent?") -> None:
    project.ask(question, mode="reuse")


def texts(project: Project, document: str) -> set[str]:
    """Hashes of the blocks a document's passages are rendered to."""
    return {sha256_text(passage_block(chunk)) for chunk in project.facts.chunks_of(document)}


def on_disk(project: Project) -> set[str]:
    return {path.name.partition(".")[0] for path in (project.state / "kv" / "blocks").glob("*")}


def in_memory(project: Project) -> set[str]:
    return {name.partition(".")[0] for name in project.reader.store._blocks}


def test_a_removed_document_leaves_memory_and_disk_at_once(opened: Callable[..., Project]) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        add(project, "b", BOILER, title="Manual")
        ask(project)
        one, two = texts(project, "a"), texts(project, "b")
        assert one | two <= on_disk(project)
        assert one | two <= in_memory(project)
        project.remove(["a"])
        assert not one & (on_disk(project) | in_memory(project))
        assert two <= on_disk(project) & in_memory(project)
        ask(project)
        assert not one & (on_disk(project) | in_memory(project))


def test_a_process_without_the_model_removes_from_disk(opened: Callable[..., Project]) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        ask(project)
        one, before = texts(project, "a"), on_disk(project)
    with opened(kv_disk_mb=16) as other:
        other.remove(["a"])
        assert "reader" not in vars(other)
        assert on_disk(other) == before - one


def test_a_passage_first_encoded_while_documents_are_taken_in_leaves_with_its_document(
    opened: Callable[..., Project],
) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        assert "reader" not in vars(project)
        with project.encoded.in_step() as leaving:  # a long `add` has begun, and nothing was ever asked
            ask(project)
            one = texts(project, "a")
            assert one <= on_disk(project)
            leaving("a")
            project.facts.remove(["a"])
        assert not one & (on_disk(project) | in_memory(project))


def test_an_update_forgets_only_the_passages_that_changed(opened: Callable[..., Project]) -> None:
    long = " ".join(f"Clause {n} of this lease says nothing of interest." for n in range(12))
    with opened(kv_disk_mb=16) as project:
        add(project, "a", long, RENT)
        ask(project)
        before = texts(project, "a")
        assert before <= on_disk(project)
        assert add(project, "a", long, DEPOSIT) == "updated"
        after = texts(project, "a")
        assert len(before & after) > 0 < len(before - after)
        assert not (before - after) & (on_disk(project) | in_memory(project))
        assert before & after <= on_disk(project) & in_memory(project)
        assert add(project, "a", long, DEPOSIT, title="Other") == "updated"  # other headers, so other blocks
        assert not before & (on_disk(project) | in_memory(project))


def test_a_passage_that_another_document_has_too_is_kept(opened: Callable[..., Project]) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        add(project, "b", RENT)
        ask(project)
        shared = texts(project, "a")
        assert shared == texts(project, "b")
        project.remove(["a"])
        assert shared <= on_disk(project) & in_memory(project)
        project.remove(["b"])
        assert not shared & (on_disk(project) | in_memory(project))


def test_what_comes_back_is_kept_again(opened: Callable[..., Project]) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        ask(project)
        project.remove(["a"])
        assert project.reader.store.forgetful
        add(project, "a", RENT)
        ask(project)
        assert texts(project, "a") <= on_disk(project) & in_memory(project)


def test_a_removal_that_fails_forgets_nothing(opened: Callable[..., Project]) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        ask(project)
        assert project.remove(["nowhere", "\ud800"])[0].status == "failed"
        assert texts(project, "a") <= on_disk(project) & in_memory(project)


def test_a_change_goes_through_where_the_index_cannot_be_asked(opened: Callable[..., Project]) -> None:
    def broken(*_: object) -> NoReturn:
        raise StoreError("the index is torn")

    with opened(kv_disk_mb=16) as project:
        for question in ("chunks_of", "chunks_with"):
            add(project, "a", RENT)
            ask(project)
            assert texts(project, "a") <= on_disk(project)
            one, asked = texts(project, "a"), getattr(project.facts, question)
            setattr(project.facts, question, broken)
            assert project.remove(["a"])[0].status == "removed"
            setattr(project.facts, question, asked)
            assert not one & (on_disk(project) | in_memory(project))


def test_a_rebuilt_index_keeps_nothing(opened: Callable[..., Project]) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        ask(project)
        project.rebuild_index()
        assert (on_disk(project), in_memory(project)) == (set(), set())


@pytest.mark.slow
def test_a_process_killed_between_index_and_cache_is_made_good(opened: Callable[..., Project], tmp_path: Path) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        ask(project)
        one = texts(project, "a")
    code = f"from factform.project import Project; Project.open({str(tmp_path / 'project')!r}).remove(['a'])"
    environment = {**os.environ, "FACTFORM_FAILPOINT": "remove_after_commit"}
    died = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL
    with opened(kv_disk_mb=16) as project:
        project.doctor()
        assert not one & on_disk(project)


@pytest.mark.parametrize(
    ("warm", "before", "after"), [("add", True, True), ("use", False, True), ("off", False, False)]
)
def test_passages_are_encoded_when_the_setting_says(
    opened: Callable[..., Project], warm: str, before: bool, after: bool
) -> None:
    seen: list[tuple[str, int, int, str]] = []
    with opened(warm=warm, kv_disk_mb=16) as project:
        project.report = lambda *step: seen.append(step)
        for name, text in (("a", RENT), ("b", DEPOSIT), ("c", BOILER)):
            add(project, name, text)
        every = texts(project, "a") | texts(project, "b") | texts(project, "c")
        assert (every <= on_disk(project)) == (every <= in_memory(project)) == before
        assert [step for step in seen if step[0] == "warm"] == [("warm", 1, 1, "")] * (3 if before else 0)
        misses = project.reader.store.counts.misses
        ask(project)
        assert (every <= on_disk(project)) == (every <= in_memory(project)) == after
        if warm == "add":
            assert project.reader.store.counts.misses - misses == 3  # the header with instructions, labels 2 and 3
        if warm == "off":
            assert (on_disk(project), in_memory(project)) == (set(), set())


def test_add_with_a_model_that_is_not_there_takes_in_nothing(opened: Callable[..., Project], tmp_path: Path) -> None:
    from factform.errors import ModelError

    with opened(warm="add", language=str(tmp_path / "nowhere")) as project:
        with pytest.raises(ModelError):
            add(project, "a", RENT)
        assert project.facts.documents() == []


def test_switching_the_disk_off_deletes_what_is_there(opened: Callable[..., Project]) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        ask(project)
        assert on_disk(project)
    with opened() as project:
        ask(project)
        assert on_disk(project) == set()


def test_doctor_reports_sizes_hit_rate_and_savings_over_processes(
    opened: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(kv_disk_mb=16) as project:
        add(project, "a", RENT)
        ask(project)
        ask(project)
        here = project.doctor()["kv"]
        size = project.reader.store.size()
    with opened(kv_disk_mb=16) as project:
        ask(project)
    with opened(kv_disk_mb=16) as project:
        there = project.doctor()["kv"]
    assert here["stored"] == "int8"
    assert here["memory"] == {**size, "budget": 1024 << 20}
    assert there["memory"] == {"entries": None, "bytes": None, "budget": 1024 << 20}
    assert here["disk"]["entries"] == there["disk"]["entries"] == size["entries"] == 3
    assert here["disk"]["budget"] == 16 << 20
    assert (here["counts"]["hits"], here["counts"]["disk_hits"], here["counts"]["misses"]) == (3, 0, 3)
    assert (there["counts"]["hits"], there["counts"]["disk_hits"], there["counts"]["misses"]) == (3, 3, 3)
    assert here["counts"]["hit_rate"] == 0.5
    assert there["counts"]["hit_rate"] == pytest.approx(2 / 3, abs=1e-4)
    assert main(["doctor", "--project", str(project.folder)]) == 0
    shown = capsys.readouterr().out
    assert "disk: 3 blocks" in shown
    assert "67% of" in shown
    assert "damaged" not in shown


def test_no_cache_where_a_server_answers(opened: Callable[..., Project]) -> None:
    with opened(url="http://localhost:1") as project:
        add(project, "a", RENT)
        assert project.doctor()["kv"] is None


def test_a_passage_reaches_the_model_through_a_search_in_scope_only(opened: Callable[..., Project]) -> None:
    """Encoded or not, a document that the reader may not see is in no prompt and no block of it is asked for."""
    with opened() as project:
        add(project, "a", RENT)
        closed = Source("b", DEPOSIT.encode(), "b.txt", "text", "Lease", {}, ("board",))
        assert project.add_sources([closed])[0].status == "created"
        ask(project, "What is the deposit?")
        hidden, hits = texts(project, "b"), project.reader.store.counts.hits
        assert hidden <= in_memory(project)
        asked: list[str] = []
        fetch = project.reader.store.fetch
        project.reader.store.fetch = lambda blocks: asked.extend(b.text for b in blocks) or fetch(blocks)  # type: ignore
        answer = project.ask("What is the deposit?", mode="reuse", principal="ann", labels=["tax"])
        assert not hidden & set(asked)
        assert project.reader.store.counts.hits > hits
        record = project.audit.show(answer.record)
        assert (record["principal"], record["access"]) == ("ann", ["tax"])
        assert "board" not in json.dumps(record)
        assert {each["document"] for each in record["candidates"]} == {"a"}
        asked.clear()
        project.ask("What is the deposit?", mode="reuse", labels=["board"])
        assert hidden & set(asked)
