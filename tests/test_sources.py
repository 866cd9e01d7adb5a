"""Files and rows as sources: ids that do not depend on where one stands, and no input lost in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factform.records import Receipt, Source
from factform.sources import document_id, find_files, read_files, read_jsonl


def read(paths: list[Path], project: Path, limit: int = 1000) -> list[Source | Receipt]:
    return list(read_files(find_files(paths, root=project / "documents", project=project), max_bytes=limit))


def test_a_folder_is_searched_in_order_and_hidden_or_foreign_files_are_left(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    for name in ("b.md", "a/x.txt", ".factform/old.md", "a/.cache/y.md", "data.bin"):
        (documents / name).parent.mkdir(parents=True, exist_ok=True)
        (documents / name).write_text(name)
    found = read([documents], tmp_path)
    assert [s.document for s in found] == ["a/x.txt", "b.md"]


def test_the_id_of_a_file_does_not_depend_on_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "documents" / "a.md"
    file.parent.mkdir()
    file.write_text("x")
    ids = [document_id(file, tmp_path / "documents", tmp_path)]
    monkeypatch.chdir(tmp_path)
    ids.append(document_id(Path("documents/a.md"), tmp_path / "documents", tmp_path))
    monkeypatch.chdir(file.parent)
    ids.append(document_id(Path("../documents/a.md"), tmp_path / "documents", tmp_path))
    assert set(ids) == {"a.md"}
    assert document_id(tmp_path / "other.md", tmp_path / "documents", tmp_path) == "other.md"
    outside = tmp_path.parent / "elsewhere.md"
    assert document_id(outside, tmp_path / "documents", tmp_path) == outside.as_posix()


def test_two_files_of_one_name_are_two_documents(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / "documents" / folder).mkdir(parents=True)
        (tmp_path / "documents" / folder / "x.md").write_text(folder)
    found = read([tmp_path / "documents" / "a" / "x.md", tmp_path / "documents" / "b" / "x.md"], tmp_path)
    assert [s.document for s in found] == ["a/x.md", "b/x.md"]


def test_what_cannot_be_read_is_a_failed_receipt_and_the_others_go_on(tmp_path: Path) -> None:
    good, large = tmp_path / "good.md", tmp_path / "large.md"
    good.write_text("x")
    large.write_text("x" * 1001)
    empty = tmp_path / "empty"
    empty.mkdir()
    found = read([tmp_path / "missing.pdf", large, empty, good], tmp_path)
    errors = [s.error for s in found if isinstance(s, Receipt)]
    assert isinstance(found[3], Source)
    assert "No such file" in str(errors[0])
    assert "1,001 bytes" in str(errors[1])
    assert "no document in this folder" in str(errors[2])


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        (json.dumps({"id": "a"}), "'text'"),
        (json.dumps({"id": "", "text": "x"}), "'id'"),
        (json.dumps({"id": 5, "text": "x"}), "'id'"),
        (json.dumps({"id": "a", "text": "x", "titel": "y"}), "'titel'"),
        (json.dumps({"id": "a", "text": "x", "metadata": 3}), "'metadata'"),
        (json.dumps({"id": "a", "text": "x", "access": "tax"}), "'access'"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_the_next_is_read(tmp_path: Path, row: str, word: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(row + "\n\n" + json.dumps({"id": "b", "text": "y", "title": "T"}) + "\n")
    bad, good = list(read_jsonl(file))
    assert isinstance(bad, Receipt)
    assert bad.document == "rows.jsonl:1"
    assert word in str(bad.error)
    assert isinstance(good, Source)
    assert (good.document, good.data, good.title) == ("b", b"y", "T")


def test_a_missing_jsonl_file_is_a_failed_receipt(tmp_path: Path) -> None:
    (only,) = read_jsonl(tmp_path / "none.jsonl")
    assert isinstance(only, Receipt)
    assert only.status == "failed"
