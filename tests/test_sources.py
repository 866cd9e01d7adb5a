"""Files and rows as sources: ids that do not depend on where one stands, and no input lost in silence."""

from __future__ import annotations

import io
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.errors import DocumentError
from factform.records import Receipt, Source
from factform.sources import (
    KEEP,
    Found,
    Labels,
    Row,
    Stdin,
    Url,
    count_lines,
    document_id,
    expand,
    find_files,
    read_file,
    read_jsonl,
    read_stdin,
    walk,
)
from unprivileged import as_nobody


def find(paths: list[Path | str], project: Path) -> list[Found]:
    found = find_files(paths, root=project / "documents", project=project)
    assert all(isinstance(item, Found) for item in found)
    return [item for item in found if isinstance(item, Found)]


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


# --- files and folders ------------------------------------------------------------------------


def test_a_folder_is_searched_in_order_and_hidden_or_foreign_files_are_left(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    write(documents, "b.md", "a/x.txt", ".factform/old.md", "a/.cache/y.md", "data.bin", "C.MD")
    assert [f.document for f in find([documents], tmp_path)] == ["C.MD", "a/x.txt", "b.md"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    write(tmp_path, "documents/a/x.md", "elsewhere/y.md")
    (tmp_path / "documents" / "a" / "circle").symlink_to(tmp_path / "documents")
    (tmp_path / "documents" / "nowhere.md").symlink_to(tmp_path / "missing.md")
    (tmp_path / "documents" / "itself.md").symlink_to(tmp_path / "documents" / "itself.md")
    (tmp_path / "documents" / "y.md").symlink_to(tmp_path / "elsewhere" / "y.md")
    assert [f.document for f in find([tmp_path / "documents"], tmp_path)] == ["a/x.md", "y.md"]


def test_a_linked_folder_gives_its_files_the_links_name(tmp_path: Path) -> None:
    """Where `current` is set to another release, its files stay the same documents."""
    write(tmp_path, "releases/1/a.md", "releases/2/a.md")
    link = tmp_path / "current"
    ids = []
    for release in ("1", "2"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / "releases" / release)
        ids += [f.document for f in find([link], tmp_path)]
    assert ids == ["../current/a.md", "../current/a.md"]


def test_the_id_of_a_file_does_not_depend_on_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "documents" / "a.md"
    file.parent.mkdir()
    file.write_text("x")
    (tmp_path / "linked").symlink_to(tmp_path)
    ids = [document_id(file, tmp_path / "documents", tmp_path)]
    monkeypatch.chdir(tmp_path)
    ids.append(document_id(Path("documents/a.md"), tmp_path / "documents", tmp_path))
    monkeypatch.chdir(file.parent)
    ids.append(document_id(Path("../documents/a.md"), tmp_path / "documents", tmp_path))
    ids.append(document_id(tmp_path / "linked" / "documents" / "a.md", tmp_path / "documents", tmp_path))
    ids.append(document_id(file, tmp_path / "linked" / "documents", tmp_path / "linked"))
    assert set(ids) == {"a.md"}
    assert document_id(tmp_path / "a.md", tmp_path / "documents", tmp_path) == "../a.md"  # and not the same as a.md
    assert document_id(tmp_path / "b" / "a.md", tmp_path / "documents", tmp_path) == "../b/a.md"
    assert document_id(tmp_path / "a.md", tmp_path.parent / "store", tmp_path) == (tmp_path / "a.md").as_posix()
    outside = tmp_path.parent / "elsewhere.md"
    assert document_id(outside, tmp_path / "documents", tmp_path) == outside.as_posix()


def test_two_files_of_one_name_are_two_documents(tmp_path: Path) -> None:
    write(tmp_path / "documents", "a/x.md", "b/x.md")
    found = find([tmp_path / "documents" / "a" / "x.md", tmp_path / "documents" / "b" / "x.md"], tmp_path)
    assert [f.document for f in found] == ["a/x.md", "b/x.md"]


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "closed/b.md")
    closed = tmp_path / "closed"
    closed.chmod(0)
    try:
        with as_nobody(tmp_path):
            found = list(walk(tmp_path))
    finally:
        closed.chmod(0o755)
    assert [(Path(f.path).name, bool(f.problem)) for f in found] == [("a.md", False), ("closed", True)]
    assert "Permission denied" in found[1].problem


# --- globs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.md", ["a.md"]),
        ("**/*.md", ["a.md", "d/b.md", "d/e/c.md"]),
        ("d/**", ["d/b.md", "d/e/c.md", "d/x.bin"]),
        ("**/e/*", ["d/e/c.md"]),
        ("**/**/c.md", ["d/e/c.md"]),
        ("?/[a-c].md", ["d/b.md"]),
        (".h/*.md", [".h/z.md"]),
        ("*/.*.md", ["d/.y.md"]),
        ("d/../[a].md", ["d/../a.md"]),
        ("x/*.md", []),
    ],
)
def test_patterns_match_as_the_shells_do(tmp_path: Path, pattern: str, names: list[str]) -> None:
    write(tmp_path, "a.md", "d/b.md", "d/e/c.md", "d/x.bin", "d/.y.md", ".h/z.md")
    (tmp_path / "d" / "e" / "circle").symlink_to(tmp_path)
    found = [Path(f.path).as_posix().removeprefix(f"{tmp_path}/") for f in expand(tmp_path / pattern)]
    assert sorted(found) == names


def test_a_pattern_that_matches_nothing_is_told_and_a_file_called_so_is_read(tmp_path: Path) -> None:
    write(tmp_path, "what?.md")
    (none,) = find([str(tmp_path / "*.pdf")], tmp_path)
    assert "matches no file" in none.problem
    (file,) = find([str(tmp_path / "what?.md")], tmp_path)
    assert (file.document, file.problem) == ("../what?.md", "")


def test_urls_and_standard_input_are_told_from_files(tmp_path: Path) -> None:
    given: list[Path | str] = ["https://example.org/a?b", "-", Path("-")]
    url, stdin, file = find_files(given, root=tmp_path, project=tmp_path, stdin=Stdin("d", "n.md"))
    assert (url, stdin) == (Url("https://example.org/a?b"), Stdin("d", "n.md"))
    assert isinstance(file, Found)
    (unnamed,) = find_files(["-"], root=tmp_path, project=tmp_path)
    assert isinstance(unnamed, Found)
    assert "--name" in unnamed.problem


# --- reading ----------------------------------------------------------------------------------


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "large.md").write_text("x" * 1001)
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    for name, word in (
        ("missing.md", "No such file"),
        ("large.md", "1,001 bytes"),
        ("empty", "directory"),
        ("pipe.md", "not a regular file"),
    ):
        with pytest.raises(DocumentError, match=word):
            read_file(tmp_path / name, name, 1000)
    (found,) = find([tmp_path / "empty"], tmp_path)
    assert "no document in this folder" in found.problem


def test_a_file_that_is_being_written_is_read_when_that_is_done(tmp_path: Path) -> None:
    """Written in two halves with a pause in between, and always written: read whole, or not at all."""
    file = tmp_path / "a.md"
    file.write_bytes(b"a" * (8 << 20))
    done = threading.Event()

    def write_on() -> None:
        while not done.is_set():
            with file.open("r+b") as handle:
                for _ in range(64):
                    handle.write(os.urandom(1) * (1 << 17))

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        with pytest.raises(DocumentError, match="being written"):
            [read_file(file, "a.md", 1 << 30) for _ in range(20)]
    finally:
        done.set()
        thread.join()
    source, state = read_file(file, "a.md", 1 << 30)
    assert (len(source.data), state.size) == (8 << 20, 8 << 20)


def test_standard_input_is_one_document_of_bounded_size() -> None:
    read = read_stdin(Stdin("d", "n.md"), io.BytesIO(b"x" * 10), 10)
    assert read == Source("d", b"x" * 10, "n.md")
    large = read_stdin(Stdin("d", "n.md"), io.BytesIO(b"x" * 11), 10)
    assert isinstance(large, Receipt)
    assert large.status == "failed"


# --- rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "JSON object"),
        (json.dumps({"id": "a"}), "'text'"),
        (json.dumps({"id": "", "text": "x"}), "'id'"),
        (json.dumps({"id": 5, "text": "x"}), "'id'"),
        (json.dumps({"id": "a", "text": "x", "titel": "y"}), "'titel'"),
        (json.dumps({"id": "a", "text": "x", "metadata": 3}), "'metadata'"),
        (json.dumps({"id": "a", "text": "x", "access": "tax"}), "'access'"),
        (json.dumps({"id": "a", "text": "x" * 200_000}), "more than 150,000 bytes"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_the_next_is_read(tmp_path: Path, row: str, word: str) -> None:
    file = tmp_path / "rows.jsonl"
    good = json.dumps({"id": "b", "text": "y", "title": "T"})
    file.write_bytes((row + "\n\n" + good + "\n").encode("utf-8", "surrogateescape"))
    bad, fine = list(read_jsonl(file, max_bytes=150_000))
    assert isinstance(bad, Receipt)
    assert bad.document == "rows.jsonl:1"
    assert word in str(bad.error)
    assert isinstance(fine, Row)
    assert (fine.source.document, fine.source.data, fine.source.title) == ("b", b"y", "T")
    assert fine.says == {"id", "text", "title"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), max_size=5))
def test_any_text_comes_through_whole(texts: list[str]) -> None:
    """Also one with signs that end a line for Python, but not for JSON: U+2028, U+0085, a carriage return."""
    lines = "".join(json.dumps({"id": str(i), "text": t}, ensure_ascii=False) + "\n" for i, t in enumerate(texts))
    rows = list(read_jsonl(io.BytesIO(b"\xef\xbb\xbf" + lines.encode())))
    assert [row.source.data.decode() for row in rows if isinstance(row, Row)] == texts


def test_rows_are_read_one_by_one() -> None:
    """A file larger than memory: nothing is read before it is asked for."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as source, os.fdopen(writing, "wb", buffering=0) as sink:
        rows = read_jsonl(source)
        for i in range(3):
            sink.write(json.dumps({"id": str(i), "text": "x"}).encode() + b"\n")
            row = next(rows)
            assert isinstance(row, Row)
            assert row.source.document == str(i)


def test_a_missing_jsonl_file_is_a_failed_receipt(tmp_path: Path) -> None:
    (only,) = read_jsonl(tmp_path / "none.jsonl")
    assert isinstance(only, Receipt)
    assert only.status == "failed"
    assert count_lines(tmp_path / "none.jsonl") == 0
    (tmp_path / "some.jsonl").write_text("a\nb\n")
    assert count_lines(tmp_path / "some.jsonl") == 2


def test_labels_say_nothing_unless_told() -> None:
    held = Labels(("staff",), {"year": 2025})
    assert Labels().over(held) == held
    assert Labels(()).over(held) == Labels((), {"year": 2025})


def test_a_row_without_a_word_about_labels_keeps_what_the_document_has() -> None:
    held = Labels(("hr",), {"year": 2025})
    bare = Source("a", b"x", "a.txt")
    own = replace(bare, access=("own",), metadata={"year": 1, "a": 2})
    both = frozenset({"access", "metadata"})
    silent, open_, full = Row(bare, frozenset()), Row(bare, both), Row(own, both)
    told = Labels(("staff",), {"year": 5, "b": 3})
    for call, row, wanted in (
        (KEEP, silent, (("hr",), {"year": 2025})),
        (KEEP, open_, ((), {})),
        (KEEP, full, (("own",), {"year": 1, "a": 2})),
        (told, silent, (("staff",), {"year": 5, "b": 3})),
        (told, open_, (("staff",), {"year": 5, "b": 3})),
        (told, full, (("own",), {"year": 1, "a": 2, "b": 3})),
        (Labels(()), silent, ((), {"year": 2025})),
    ):
        got = call.under(row, held)
        assert (got.access, got.metadata) == wanted
    assert KEEP.under(silent, KEEP) == bare
