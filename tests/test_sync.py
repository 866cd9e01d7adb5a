"""A folder and the documents that came from it are equal after every sync, whatever happened to either."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from factform.errors import SyncRefused
from factform.facts.origins import SyncedFile
from factform.ids import sha256
from factform.project import Project
from factform.records import Change, Source
from factform.sources import Found, State, find_files
from factform.sync import trusted
from unprivileged import as_nobody


@pytest.fixture
def project(tmp_path: Path, tiny_embedder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    (folder / "docs").mkdir(parents=True)
    (folder / "factform.toml").write_text(f"[model]\nembedder = {json.dumps(str(tiny_embedder_dir))}\n")
    with Project.open(folder) as opened:
        yield opened


@pytest.fixture
def docs(project: Project) -> Path:
    return project.folder / "docs"


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def done(changes: list[Change]) -> dict[str, str]:
    """What happened to each document, where anything did."""
    return {change.document: change.action for change in changes if change.action != "unchanged"}


def held(project: Project) -> dict[str, str]:
    return {info.document: info.sha256 for info in project.facts.documents()}


def found(project: Project, question: str) -> set[str]:
    return {hit.chunk.document for hit in project.search(question, k=50).hits}


def test_added_updated_renamed_removed_and_searchable(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.", b="A quiet harbour.", c__d="Three boilers.")
    assert done(project.sync(docs)) == {"docs/a.md": "add", "docs/b.md": "add", "docs/c/d.md": "add"}
    assert done(project.sync(docs)) == {}
    write(docs, a="The giraffe farm.")
    (docs / "c" / "d.md").rename(docs / "e.md")
    (docs / "b.md").unlink()
    foreseen = project.sync(docs, dry_run=True)
    assert held(project).keys() == {"docs/a.md", "docs/b.md", "docs/c/d.md"}
    changes = project.sync(docs)
    assert done(changes) == {"docs/a.md": "update", "docs/e.md": "rename", "docs/b.md": "remove"}
    assert done(foreseen) == done(changes)
    assert [c.renamed_from for c in changes if c.action == "rename"] == ["docs/c/d.md"]
    assert all(c.visible_ms for c in changes if c.action in ("add", "update", "rename"))
    assert found(project, "boilers") >= {"docs/e.md"}
    assert found(project, "harbour boilers zebra") == held(project).keys() == {"docs/a.md", "docs/e.md"}
    assert [row.status for row in project.facts.history("docs/c/d.md")] == ["removed"]


def test_what_did_not_change_is_not_read_again(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.")
    old = (1_700_000_000_000_000_000,) * 2
    os.utime(docs / "a.md", ns=old)
    project.sync(docs)
    entry = project.facts.origins.synced("docs")["docs/a.md"]
    state = State.of((docs / "a.md").stat())
    # The change time cannot be set back, so the reading is moved forward: as if the sync had been a minute later.
    later = SyncedFile(**{**entry.__dict__, "read_ns": entry.read_ns + 60_000_000_000})
    assert not trusted(entry, state)
    assert trusted(later, state)
    project.facts.origins.note("docs", [later])
    (docs / "a.md").chmod(0o640)  # looks different, is the same
    assert not trusted(later, State.of((docs / "a.md").stat()))
    assert done(project.sync(docs)) == {}


def test_labels_are_given_to_files_that_are_not_read_again(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.")
    project.sync(docs)
    entry = project.facts.origins.synced("docs")["docs/a.md"]
    project.facts.origins.note("docs", [replace(entry, read_ns=entry.read_ns + 60_000_000_000)])
    assert done(project.sync(docs)) == {}
    assert done(project.sync(docs, access=["staff"])) == {"docs/a.md": "update"}


def test_one_document_is_renamed_once(project: Project, docs: Path) -> None:
    """Copied and then deleted: one copy is the document under another name, the other is new."""
    write(docs, a="The zebra farm.", z="A quiet harbour.")
    project.sync(docs)
    (docs / "a.md").unlink()
    write(docs, b="The zebra farm.", c="The zebra farm.")
    assert done(project.sync(docs)) == {"docs/b.md": "rename", "docs/c.md": "add"}


def test_a_second_change_at_the_same_time_and_of_the_same_size_is_seen(project: Project, docs: Path) -> None:
    same = (1_700_000_000_000_000_000,) * 2
    for text in ("The zebra farm.", "The tiger farm.", "The horse farm."):
        (docs / "a.md").write_text(text)
        os.utime(docs / "a.md", ns=same)
        project.sync(docs)
        assert held(project) == {"docs/a.md": sha256(text.encode())}


def test_only_a_file_at_rest_is_trusted() -> None:
    second = 1_000_000_000
    entry = SyncedFile("a", "a", "x", 5, 100 * second, 100 * second, 7, 103 * second)
    same = State(5, 100 * second, 100 * second, 7)
    assert trusted(entry, same)
    for other in (
        *(State(6, same.mtime_ns, same.ctime_ns, 7), State(5, same.mtime_ns + 1, same.ctime_ns, 7)),
        *(State(5, same.mtime_ns, same.ctime_ns + 1, 7), State(5, same.mtime_ns, same.ctime_ns, 8)),
    ):
        assert not trusted(entry, other)
    for changed in ({"read_ns": 101 * second}, {"mtime_ns": -1}, {"read_ns": -1}):
        assert not trusted(SyncedFile(**{**entry.__dict__, **changed}), same)
    assert not trusted(SyncedFile("a", "a"), same)


def test_what_came_in_otherwise_stays(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.")
    project.add_sources([Source("docs/row", b"A row.", "row.txt"), Source("docs/gone.md", b"Another.", "gone.md")])
    project.sync(docs)
    (docs / "a.md").unlink()
    write(docs, b="Something else.")
    assert done(project.sync(docs)) == {"docs/a.md": "remove", "docs/b.md": "add"}
    assert held(project).keys() == {"docs/b.md", "docs/row", "docs/gone.md"}


def test_what_was_taken_out_otherwise_comes_back(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.", b="A quiet harbour.")
    project.sync(docs)
    project.remove(["docs/a.md"])
    project.add_sources([Source("docs/b.md", b"Not the file's words.", "b.md")])
    assert done(project.sync(docs)) == {"docs/a.md": "add", "docs/b.md": "update"}


def test_most_documents_are_not_removed_without_being_told(project: Project, docs: Path) -> None:
    write(docs, **{f"f{i:02}": f"Number {i}." for i in range(24)})
    project.sync(docs)
    for i in range(13):
        (docs / f"f{i:02}.md").unlink()
    with pytest.raises(SyncRefused, match=r"13 of the 24 documents .*--force"):
        project.sync(docs)
    with pytest.raises(SyncRefused, match="13 of the 24"):
        project.sync(docs, dry_run=True)
    assert len(held(project)) == 24
    write(docs, f00="Number 0.")
    assert set(done(project.sync(docs)).values()) == {"remove"}
    assert len(held(project)) == 12


def test_an_empty_or_missing_folder_is_not_the_end_of_its_documents(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.", b="A quiet harbour.")
    project.sync(docs)
    docs.rename(docs.with_name("elsewhere"))
    for why in ("is not there", "is empty"):
        with pytest.raises(SyncRefused, match=f"{why}.*2 documents stay"):
            project.sync(docs)
        docs.mkdir(exist_ok=True)
    assert done(project.sync(docs, force=True)) == {"docs/a.md": "remove", "docs/b.md": "remove"}
    docs.rmdir()
    docs.write_text("x")
    with pytest.raises(SyncRefused, match="not a folder"):
        project.sync(docs)


def test_documents_below_a_folder_that_cannot_be_listed_stay(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.", closed__b="A quiet harbour.", closed__deep__c="Three boilers.")
    project.sync(docs)
    (docs / "closed").chmod(0)
    (docs / "a.md").rename(docs / "c.md")
    sync = project._sync(docs, None, None)
    with as_nobody(docs):
        plan = sync.plan()
    (docs / "closed").chmod(0o755)
    changes = sync.carry_out(plan)
    assert done(changes) == {"docs/c.md": "rename", str(docs / "closed"): "failed"}
    assert held(project).keys() == {"docs/c.md", "docs/closed/b.md", "docs/closed/deep/c.md"}


def test_one_bad_file_costs_only_itself_and_is_tried_again(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.", b="Fine.")
    project.sync(docs)
    (docs / "a.md").write_bytes(b"\xff\xfe\x00binary")
    (docs / "empty.md").write_bytes(b"")
    (docs / b"n\xff.md".decode("utf-8", "surrogateescape")).write_text("Its name is not valid.")
    for _ in range(2):
        changes = {change.document: change for change in project.sync(docs)}
        failed = [document for document, change in changes.items() if change.action == "failed"]
        assert failed == ["docs/a.md", "docs/empty.md", "docs/n\udcff.md"]
        assert "Unicode" in str(changes["docs/n\udcff.md"].error)
    assert found(project, "zebra farm") >= {"docs/a.md"}  # an update that fails leaves the older version
    write(docs, a="The giraffe farm.", empty="Not any more.")
    assert {"docs/a.md": "update", "docs/empty.md": "add"}.items() <= done(project.sync(docs)).items()


def test_labels_are_kept_and_hold_for_the_folder_once_said(project: Project, docs: Path) -> None:
    def labels() -> dict[str, tuple[tuple[str, ...], object]]:
        return {i.document: (i.access, i.metadata.get("year")) for i in project.facts.documents()}

    write(docs, a="The zebra farm.", b="A quiet harbour.")
    project.add([docs / "a.md"], access=["staff"], metadata={"year": 2025})
    project.add([docs / "a.md"])
    project.sync(docs)
    assert labels() == {"docs/a.md": (("staff",), 2025), "docs/b.md": ((), None)}
    (docs / "a.md").rename(docs / "c.md")
    project.sync(docs)
    assert labels()["docs/c.md"] == (("staff",), 2025)
    assert done(project.sync(docs, access=["board"])) == {"docs/b.md": "update", "docs/c.md": "update"}
    write(docs, d="New.")
    project.sync(docs)
    assert labels() == {
        "docs/b.md": (("board",), None),
        "docs/c.md": (("board",), 2025),
        "docs/d.md": (("board",), None),
    }
    project.sync(docs, access=[])
    assert {access for access, _ in labels().values()} == {()}


def test_a_labelled_file_moved_over_another_takes_its_labels_along(project: Project, docs: Path) -> None:
    def labels() -> dict[str, tuple[str, ...]]:
        return {i.document: i.access for i in project.facts.documents()}

    write(docs, secret="Salaries of the zebras.", notes="A quiet harbour.", same="A quiet harbour.", other="Boilers.")
    project.add([docs / "secret.md"], access=["hr"])
    project.add([docs / "same.md"], access=["board"])
    project.sync(docs)
    (docs / "secret.md").replace(docs / "notes.md")
    assert done(project.sync(docs)) == {"docs/notes.md": "update", "docs/secret.md": "remove"}
    assert labels() == {"docs/notes.md": ("hr",), "docs/same.md": ("board",), "docs/other.md": ()}
    write(docs, notes="A quiet harbour.")  # written anew, and a labelled one with the same words goes
    project.sync(docs)
    (docs / "same.md").unlink()
    (docs / "notes.md").touch()
    project.sync(docs)
    assert labels() == {"docs/notes.md": ("hr",), "docs/other.md": ()}
    (docs / "other.md").replace(docs / "notes.md")  # what is open to all opens nothing
    project.sync(docs)
    assert labels() == {"docs/notes.md": ("hr",)}


def test_labels_hold_where_the_newest_bytes_are_refused(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.", b="A quiet harbour.")
    project.sync(docs)
    (docs / "a.md").write_bytes(b"\xff\xfe\x00binary")
    assert done(project.sync(docs, access=["hr"])) == {"docs/a.md": "failed", "docs/b.md": "update"}
    assert {i.document: i.access for i in project.facts.documents()} == {"docs/a.md": ("hr",), "docs/b.md": ("hr",)}
    assert found(project, "zebra farm") >= {"docs/a.md"}


def test_lock_files_of_office_programs_are_no_documents(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.")
    for name in ("~$a.md", ".~lock.a.md#", "~$plan.docx"):
        (docs / name).write_text("somebody")
    assert done(project.sync(docs)) == {"docs/a.md": "add"}
    scoped = project._sync(docs, None, None)
    assert scoped.plan({docs / "~$a.md", docs / "~$plan.docx"}).taking == ()
    assert [r.document for r in project.add([str(docs / "*")])] == ["docs/a.md"]


def test_a_place_one_may_not_look_at_fails_alone(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.", closed__x="Hidden.")
    (docs / "link.md").symlink_to(docs / "closed" / "x.md")
    project.sync(docs)
    (docs / "closed").chmod(0)
    try:
        with as_nobody(docs):
            sync = project._sync(docs, None, None)
            plan = sync.plan({docs / "link.md", docs / "closed" / "x.md"})
            offered = find_files([docs / "closed" / "x.md", docs / "a.md"], root=project.folder, project=project.folder)
    finally:
        (docs / "closed").chmod(0o755)
    assert plan.taking == ()
    assert [item.document for item in offered if isinstance(item, Found)] == ["docs/closed/x.md", "docs/a.md"]


def test_a_sync_that_was_stopped_goes_on(project: Project, docs: Path) -> None:
    write(docs, **{f"f{i}": f"Number {i}." for i in range(5)}, old="Old words.")
    project.sync(docs)
    write(docs, **{f"g{i}": f"Another number {i}." for i in range(5)})
    (docs / "old.md").unlink()
    sync = project._sync(docs, None, None)
    sync.stop = stopping = threading.Event()
    add = sync.add

    def add_two(sources: object, total: int) -> list[object]:
        def two() -> Iterator[object]:
            for number, source in enumerate(sources):  # type: ignore[arg-type,var-annotated]
                if number == 6:  # f0 to f4 were written just now and are read again
                    stopping.set()
                yield source

        return add(two(), total)  # type: ignore[arg-type,return-value]

    sync.add = add_two  # type: ignore[assignment]
    assert done(sync.carry_out(sync.plan())) == {"docs/g0.md": "add", "docs/g1.md": "add"}
    assert "docs/old.md" in held(project)
    # What was claimed and not reached is no document yet, and its file may go before the sync goes on.
    (docs / "g4.md").unlink()
    assert done(project.sync(docs)) == {"docs/g2.md": "add", "docs/g3.md": "add", "docs/old.md": "remove"}
    assert "docs/g4.md" not in project.facts.origins.synced("docs")


def test_a_document_taken_in_by_a_sync_that_died_is_still_the_folders(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.", b="A quiet harbour.")
    sync = project._sync(docs, None, None)
    add = sync.add

    def die(*arguments: object) -> list[object]:
        add(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    sync.add = die  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        sync.carry_out(sync.plan())
    (docs / "a.md").unlink()
    assert done(project.sync(docs)) == {"docs/a.md": "remove"}


def test_a_part_of_the_folder_can_be_synced(project: Project, docs: Path) -> None:
    write(docs, a="The zebra farm.", sub__b="A quiet harbour.", sub__c="Three boilers.", subway__d="Trains.")
    project.sync(docs)
    write(docs, a="The giraffe farm.")
    shutil.rmtree(docs / "sub")
    (docs / "subway" / "d.md").unlink()
    sync = project._sync(docs, None, None)
    plan = sync.plan({docs / "sub", docs / ".hidden" / "x.md"})
    assert done(sync.carry_out(plan)) == {"docs/sub/b.md": "remove", "docs/sub/c.md": "remove"}
    (docs / "subway").rename(docs / "sub")
    write(docs, sub__e="New.")
    assert done(sync.carry_out(sync.plan({docs / "sub", docs / "subway"}))) == {
        "docs/sub/e.md": "add",
        "docs/subway/d.md": "remove",
    }
    assert done(project.sync(docs)) == {"docs/a.md": "update"}


NAMES = st.sampled_from(["a.md", "b.md", "x/a.md", "x/c.md", "x/y/d.md", "z.txt"])
TEXTS = st.sampled_from(["one", "two", "three", "a much longer text"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, TEXTS),
        st.tuples(st.just("move"), NAMES, NAMES),
        st.tuples(st.just("delete"), NAMES, st.just("")),
        st.tuples(st.just("sync"), st.just(""), st.just("")),
    ),
    max_size=12,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(
    [
        ("write", "a.md", "one"),
        ("write", "b.md", "two"),
        ("sync", "", ""),
        ("move", "b.md", "x/c.md"),
        ("move", "a.md", "b.md"),
    ]
)
@given(STEPS)
def test_after_any_history_the_store_is_the_folder(project: Project, steps: list[tuple[str, str, str]]) -> None:
    docs = project.folder / "docs"
    shutil.rmtree(docs)
    docs.mkdir()
    project.sync(docs, force=True)
    for step, name, other in [*steps, ("sync", "", "")]:
        path = docs / name
        if step == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(other)
        elif step == "delete":
            path.unlink(missing_ok=True)
        elif step == "move" and path.is_file():
            (docs / other).parent.mkdir(parents=True, exist_ok=True)
            path.rename(docs / other)
        elif step == "sync":
            foreseen = done(project.sync(docs, force=True, dry_run=True))
            changes = project.sync(docs, force=True)
            assert done(changes) == foreseen
            files = {f"docs/{p.relative_to(docs).as_posix()}": p for p in docs.rglob("*.*")}
            assert held(project) == {document: sha256(p.read_bytes()) for document, p in files.items()}
            assert project.facts.origins.synced("docs").keys() == files.keys()
            assert done(project.sync(docs)) == {}
