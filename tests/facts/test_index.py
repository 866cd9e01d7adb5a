"""The index: atomic replacement, filters that cannot be broken out of, files that are really on disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import DIM, HashEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factform.errors import StoreError
from factform.facts import index as module
from factform.facts import tablefiles
from factform.facts.index import Index, remove_tables
from factform.facts.rows import Row, search_text
from factform.facts.tablefiles import Refused
from factform.facts.visible import EVERYTHING, Visible
from factform.facts.words import asked
from factform.ids import chunk_id, sha256_text
from factform.records import Chunk

ENCODER = HashEncoder()

AWKWARD = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.sampled_from(["it's", "'", "''", "' OR 1=1 --", '"', "\\", "\\'", "%", "_", "a\x00b", "株式", "🙂", "');--"]),
)


def rows(document: str, texts: list[str], version: str = "v", access: tuple[str, ...] = ()) -> list[Row]:
    made, start = [], 0
    for text in texts:
        end = start + len(text)
        key = chunk_id(document, version, start, end)
        made.append(Row(Chunk(key, document, version, start, end, text, sha256_text(text), "Title", ("H",)), access))
        start = end
    return made


def vectors(some: list[Row]) -> np.ndarray:  # type: ignore[type-arg]
    return ENCODER.encode([search_text(row.chunk) for row in some])


def documents(index: Index) -> dict[str, tuple[str, int]]:
    """What the table holds, superseded rows included: document -> (version, chunks)."""
    counted = Counter((record["document"], record["version"]) for record in index.rows())
    assert len({document for document, _ in counted}) == len(counted)
    return {document: (version, number) for (document, version), number in counted.items()}


def put(index: Index, document: str, texts: list[str], **more: object) -> None:
    some = rows(document, texts, **more)  # type: ignore[arg-type]
    index.replace(some, vectors(some), [document])


def found(index: Index, question: str, allowed: frozenset[str] | None = None, n: int = 50) -> list[str]:
    vector, _ = ENCODER.encode_query(question)
    return [item.row.chunk.document for item in index.candidates(question, vector, n=n, visible=Visible(allowed))[0]]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.create(tmp_path / "index", "chunks_1", DIM)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """One table for all Hypothesis examples, each of which leaves it as it found it."""
    made = Index.create(tmp_path_factory.mktemp("shared") / "index", "chunks_1", DIM)
    put(made, "bystander", ["something else entirely"])
    made.optimize()
    return made


def test_what_goes_in_comes_out(index: Index) -> None:
    some = rows("d", ["alpha beta", "gamma"], access=("a", "b"))
    paged = {"page": 7, "pages": ((7, 0), (9, 6)), "heading": ("One", "Two")}
    some[0] = Row(Chunk(**{**some[0].chunk.__dict__, **paged}), ("a", "b"))
    index.replace(some, vectors(some), ["d"])
    got, version = index.candidates("alpha", ENCODER.encode_query("alpha")[0], n=5, visible=EVERYTHING)
    assert sorted((item.row for item in got), key=lambda row: row.chunk.start) == some
    by_id = {item.row.chunk.id: item.vector for item in got}
    for row, vector in zip(some, vectors(some), strict=True):
        np.testing.assert_allclose(by_id[row.chunk.id], vector, atol=1e-6)
    assert version == index.version()
    assert sorted(index.chunks_of("d"), key=lambda chunk: chunk.start) == [row.chunk for row in some]


def test_replacing_leaves_no_old_text(index: Index) -> None:
    put(index, "a", ["old one", "old two", "old three"])
    put(index, "b", ["other"])
    put(index, "a", ["new one"], version="w")
    assert documents(index) == {"a": ("w", 1), "b": ("v", 1)}
    assert [record["text"] for record in index.rows() if record["document"] == "a"] == ["new one"]


def test_several_documents_in_one_commit(index: Index) -> None:
    put(index, "a", ["a1", "a2"])
    some = [*rows("a", ["a3"], "w"), *rows("b", ["b1", "b2"])]
    index.replace(some, vectors(some), ["a", "b"])
    assert documents(index) == {"a": ("w", 1), "b": ("v", 2)}
    index.delete(["a", "b"])
    assert documents(index) == {}


def test_no_two_rows_of_one_id(index: Index) -> None:
    put(index, "a", ["one", "two"])
    put(index, "a", ["one", "two"])
    assert documents(index) == {"a": ("v", 2)}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=AWKWARD)
def test_any_document_id_is_replaced_and_deleted_alone(shared: Index, document: str) -> None:
    before = documents(shared)
    put(shared, document, ["one", "two"])
    put(shared, document, ["three"], version="w")
    assert documents(shared) == {**before, document: ("w", 1)}
    shared.delete([document])
    assert documents(shared) == {key: value for key, value in before.items() if key != document}
    if document == "bystander":
        put(shared, "bystander", ["something else entirely"])


def test_predicates_hold_no_document_id(index: Index) -> None:
    put(index, "jane.roe@example.org", ["private"])
    index.delete(["jane.roe@example.org"])
    left = list((index.path / "_transactions").iterdir())
    assert any(b"_rowid IN" in path.read_bytes() for path in left)
    assert not any(b"jane.roe" in path.read_bytes() for path in left)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=AWKWARD, others=st.frozensets(AWKWARD, max_size=3))
def test_access_is_filtered_before_ranking(shared: Index, label: str, others: frozenset[str]) -> None:
    put(shared, "secret", ["zebra zebra"], access=(label, "second"))
    try:
        sees = label in others or "second" in others
        assert ("secret" in found(shared, "zebra", others, n=2)) is sees
        assert "secret" in found(shared, "zebra", others | {label}, n=1)
        assert "bystander" in found(shared, "zebra", others, n=50)
        assert "secret" in found(shared, "zebra", None)
    finally:
        shared.delete(["secret"])


def test_access_without_any_label(index: Index) -> None:
    for i in range(5):
        put(index, f"secret{i}", ["zebra"], access=("staff",))
    put(index, "open", ["something quite different"])
    index.optimize()
    # Filtered before, not after: the nearest rows are all hidden, and yet the list is not empty.
    assert found(index, "zebra", frozenset(), n=1) == ["open"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.one_of(st.text(st.characters(codec="utf-8"), max_size=40), st.text("\"'*?+-:()^~[]{}\\/&|! ab")))
def test_any_question_is_only_words(shared: Index, question: str) -> None:
    # A quoted phrase is the one thing in a question that has a meaning of its own: what lacks it is not found.
    assert found(shared, question) == ([] if asked(question).phrases else ["bystander"])


def test_words_are_found_in_every_script(index: Index) -> None:
    texts = {"de": "Die Quartalszahlen übertrafen", "cn": "本季度收入增长了百分之十", "ru": "выручка выросла"}
    for document, text in texts.items():
        put(index, document, [text])
    index.optimize()
    for document, question in {"de": "übertrafen", "cn": "收入", "ru": "выручка"}.items():
        got, _ = index.candidates(question, ENCODER.encode_query("unrelated")[0], n=5, visible=EVERYTHING)
        assert [item.row.chunk.document for item in got if item.bm25 > 0] == [document]


def test_optimizing_forgets_no_version(index: Index) -> None:
    put(index, "a", ["old"])
    before = index.version()
    put(index, "a", ["new"], version="w")
    index.optimize()
    index.optimize()
    table = index._connection.open_table(index.name)
    table.checkout(before)
    assert [record["text"] for record in table.search().to_list()] == ["old"]


def test_another_handle_sees_a_commit_at_once(index: Index) -> None:
    other = Index.open(index.folder, index.name, DIM)
    put(index, "a", ["apple"])
    assert found(other, "apple") == ["a"]
    put(index, "a", ["cherry"], version="w")
    assert documents(other) == {"a": ("w", 1)}


def test_small_files_are_put_together_and_rows_keep_their_names(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRAGMENTS", 5)
    for i in range(7):
        put(index, f"d{i}", [f"word{i} and more"])
    index.delete(["d3"])
    before = index.candidates("word5", ENCODER.encode_query("word5")[0], n=10, visible=EVERYTHING)[0]
    assert index.wants_optimizing()
    index.optimize()
    assert index._table.stats()["fragment_stats"]["num_fragments"] == 1
    assert not index.wants_optimizing()
    after = index.candidates("word5", ENCODER.encode_query("word5")[0], n=10, visible=EVERYTHING)[0]
    assert [(item.row, item.bm25) for item in after] == [(item.row, item.bm25) for item in before]


def test_every_new_file_and_folder_is_fsynced(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[Path] = set()
    monkeypatch.setattr(tablefiles, "fsync_path", synced.add)
    before = {path for path in index.folder.rglob("*") if path.is_file()}
    put(index, "a", ["apple"])
    index.optimize()
    index.sync()
    new = {path for path in index.folder.rglob("*") if path.is_file()} - before
    assert new
    assert new <= synced
    assert {path.parent for path in new} | {index.path, index.folder} <= synced
    synced.clear()
    index.sync()
    assert synced == set()


def test_what_could_not_be_fsynced_is_still_to_be(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[Path] = set()
    before = {path for path in index.folder.rglob("*") if path.is_file()}
    put(index, "a", ["apple"])

    def refuse(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(tablefiles, "fsync_path", refuse)
    with pytest.raises(Refused):
        index.sync()
    put(index, "b", ["banana"])
    monkeypatch.setattr(tablefiles, "fsync_path", synced.add)
    index.sync()
    assert {path for path in index.folder.rglob("*") if path.is_file()} - before - {index.files.sums.path} <= synced
    synced.clear()
    index.sync(everything=True)
    assert {path for path in index.path.rglob("*") if path.is_file()} <= synced


def test_a_torn_manifest_is_an_error_with_a_way_out(index: Index) -> None:
    put(index, "a", ["apple"])
    newest = max((index.path / "_versions").glob("*.manifest"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:40])
    with pytest.raises(StoreError, match="factform index rebuild"):
        Index.open(index.folder, index.name, DIM)
    with pytest.raises(StoreError, match="factform index rebuild"):
        Index.open(index.folder, "nothing", DIM)


def test_another_layout_is_refused(index: Index) -> None:
    with pytest.raises(StoreError, match="another layout"):
        Index.open(index.folder, index.name, DIM + 1)
    index._table.drop_columns(["pages"])
    with pytest.raises(StoreError, match="another layout; run `factform index rebuild`"):
        Index.open(index.folder, index.name, DIM)


def test_vectors_must_fit(index: Index) -> None:
    with pytest.raises(StoreError, match="shape"):
        index.replace(rows("a", ["x"]), np.zeros((2, DIM), np.float32), ["a"])


def test_remove_tables_keeps_one(tmp_path: Path) -> None:
    for name in ("chunks_1", "chunks_2"):
        Index.create(tmp_path, name, DIM)
    remove_tables(tmp_path, "chunks_2")
    assert [path.name for path in tmp_path.glob("*.lance")] == ["chunks_2.lance"]
    assert Index.open(tmp_path, "chunks_2", DIM).held() == {}


def test_only_the_documents_asked_for_are_looked_in(index: Index) -> None:
    for document in ("a", "b", "c"):
        put(index, document, ["zebra"])
    vector, _ = ENCODER.encode_query("zebra")
    for documents in (frozenset(), frozenset({"b"}), frozenset({"a", "c", "nothing"})):
        got, _ = index.candidates("zebra", vector, n=5, visible=Visible(None, documents))
        assert {item.row.chunk.document for item in got} == documents - {"nothing"}
