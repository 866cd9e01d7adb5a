"""What is searched follows the table: whoever wrote, in whatever order, whatever of the kept files is torn."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import DIM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_lexical import asking, put

from factform.facts import live as module
from factform.facts.index import Index
from factform.facts.recovery import sound
from factform.facts.visible import Visible
from factform.facts.words import literal

WORDS = ("apple", "banana", "cherry", "damson")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.create(tmp_path / "index", "chunks_1", DIM)


def told(index: Index, question: str = "apple banana", visible: Visible | None = None) -> list[tuple[str, float]]:
    found = asking(index, question, visible or Visible())
    return [(item.row.chunk.id, item.bm25) for item in found]


def anew(index: Index) -> Index:
    """The same table, searched from nothing but the table."""
    other = Index.open(index.folder, index.name, DIM)
    other._live._folder = index.folder / "nowhere"
    return other


STEP = st.tuples(st.sampled_from(("put", "delete", "merge", "compact", "reopen", "look")), st.integers(0, 5))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=14), st.randoms())
def test_any_order_of_changes_gives_what_a_plain_dictionary_gives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], pick: random.Random
) -> None:
    index = Index.create(tmp_path_factory.mktemp("any") / "index", "chunks_1", DIM)
    watcher = Index.open(index.folder, index.name, DIM)
    held: dict[str, str] = {}
    for what, number in steps:
        document = f"d{number}"
        if what == "put":
            held[document] = " ".join(pick.choices(WORDS, k=3))
            put(index, document, held[document], ("staff",) if number % 2 else ())
        elif what == "delete":
            index.delete([document])
            held.pop(document, None)
        elif what == "merge":
            index.optimize(wait=True)
        elif what == "compact":
            index.optimize()
        elif what == "reopen":
            index.close()
            index = Index.open(index.folder, index.name, DIM)
        else:
            told(watcher)
        for question in ("apple", "cherry damson"):
            found = asking(index, question)
            assert {item.row.chunk.document: item.row.chunk.text for item in found} == held
            words = set(question.split())
            hits = {item.row.chunk.document for item in found if item.bm25 > 0}
            assert hits == {key for key, text in held.items() if words & set(literal(text).split())}
    for visible in (Visible(), Visible(frozenset()), Visible(None, frozenset({"d1", "d2"}))):
        assert told(watcher, visible=visible) == told(index, visible=visible) == told(anew(index), visible=visible)


def test_between_two_commits_of_a_replacement_the_new_rows_count(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    put(index, "a", "old apple")
    put(index, "b", "banana")
    seen = []
    drop = Index._drop

    def looking(self: Index, rowids: list[int]) -> None:
        for handle in (index, anew(index)):
            found = asking(handle, "apple")
            seen.append({item.row.chunk.document: item.row.chunk.text for item in found})
            assert [chunk.text for chunk in handle.chunks_of("a")] == ["new apple"]
        drop(self, rowids)

    monkeypatch.setattr(Index, "_drop", looking)
    put(index, "a", "new apple")
    assert seen == [{"a": "new apple", "b": "banana"}] * 2
    monkeypatch.undo()
    # The process died in between: what is left over counts nowhere and goes with the next change.
    monkeypatch.setattr(Index, "_drop", lambda *_: None)
    put(index, "a", "newer apple")
    monkeypatch.undo()
    other = Index.open(index.folder, index.name, DIM)
    assert other.held() == {"a": (0, 1), "b": (0, 1)}
    assert told(other) == told(index)
    other.delete(["b"])
    assert other.count() == 1
    assert told(index) == told(anew(index)) != []


@pytest.mark.parametrize("name", ["posts.npy", "vocabulary.txt", "about.json", "small.npy"])
@pytest.mark.parametrize("how", ["flip", "cut", "empty", "gone"])
def test_torn_files_are_made_anew(index: Index, name: str, how: str) -> None:
    for i in range(5):
        put(index, f"d{i}", f"apple banana {WORDS[i % 4]} Haftpflichtversicherung")
    index.optimize(wait=True)
    want = told(index)
    (kept,) = [path for path in (index.folder / "chunks_1.words").iterdir() if path.is_dir()]
    data = bytearray((kept / name).read_bytes())
    if how == "flip":
        data[-1] ^= 1
    (kept / name).write_bytes({"flip": data, "empty": b""}.get(how, data[: len(data) // 2]))
    if how == "gone":
        (kept / name).unlink()
    assert told(Index.open(index.folder, index.name, DIM)) == want


@pytest.mark.parametrize("field", ["groups", "leftover", "version", "analysis"])
def test_what_is_told_of_kept_files_is_checked_too(index: Index, field: str) -> None:
    """Groups say who may see which row: a changed letter there would change what a reader finds."""
    put(index, "a", "apple", access=("staff",))
    put(index, "b", "apple banana")
    index.optimize(wait=True)
    assert set(index.kept_words().values()) == {True}
    (about,) = (index.folder / "chunks_1.words").glob("*/about.json")
    sound, at = about.read_bytes(), about.read_bytes().index(f'"{field}": '.encode()) + len(field) + 4
    about.write_bytes(sound[: at + 3] + bytes([sound[at + 3] ^ 1]) + sound[at + 4 :])
    assert set(index.kept_words().values()) == {False}
    about.write_bytes(sound)
    assert set(index.kept_words().values()) == {True}


def test_kept_files_are_used_and_only_for_their_own_version(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        put(index, f"d{i}", f"apple {WORDS[i % 4]}")
    index.optimize(wait=True)
    want = told(index)
    reopened = Index.open(index.folder, index.name, DIM)
    with monkeypatch.context() as patched:
        patched.setattr(module.LiveRows, "_take", lambda *_: pytest.fail("read the table"))
        patched.setattr(module, "shrunk", lambda *_: pytest.fail("read the table"))
        reopened._live._load(index.version())
    assert len(reopened._live._base.columns) == 5
    assert told(reopened) == want
    about = next((index.folder / "chunks_1.words").glob("*/about.json"))
    about.write_text(about.read_text("utf-8").replace('"manifest": "', '"manifest": "0'), "utf-8")
    other = Index.open(index.folder, index.name, DIM)
    other._live._load(index.version())
    assert len(other._live._base.columns) == 0
    assert told(other) == want


def test_setting_the_table_back_is_noticed_by_all(index: Index) -> None:
    watcher = Index.open(index.folder, index.name, DIM)
    put(index, "a", "apple")
    version = index.version()
    put(index, "a", "banana")
    index.optimize(wait=True)
    assert {item.row.chunk.text for item in asking(watcher, "x")} == {"banana"}
    index.restore(version)
    for handle in (index, watcher, Index.open(index.folder, index.name, DIM)):
        assert {item.row.chunk.text for item in asking(handle, "x")} == {"apple"}


def test_versions_that_were_taken_away_do_not_hide_newer_ones(index: Index) -> None:
    """Whoever mends a table sets it back and deletes the manifests in between: the number after the one a reader knows
    is then not there, and yet the table moved."""
    put(index, "a", "apple")
    index.sync()
    durable = index.version()
    watcher = Index.open(index.folder, index.name, DIM)
    assert {item.row.chunk.text for item in asking(watcher, "x")} == {"apple"}
    put(index, "a", "banana")
    mended = sound(index.folder, index.name, DIM, durable)
    assert watcher._live._manifest_path(durable + 1) is None
    put(mended, "b", "cherry")
    assert {item.row.chunk.text for item in asking(watcher, "x")} == {"apple", "cherry"}


def test_what_is_known_is_not_asked_again(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    put(index, "a", "apple")
    told(index)
    monkeypatch.setattr(Index, "path", property(lambda _: pytest.fail("the table was opened")))
    monkeypatch.setattr(index, "_connection", None)
    assert told(index)


def test_another_process_writes_and_this_one_sees_it(index: Index) -> None:
    put(index, "a", "apple")
    told(index)
    code = (
        "import sys; from pathlib import Path; from test_lexical import put; from factform.facts.index import Index\n"
        "other = Index.open(Path(sys.argv[1]), 'chunks_1', 32)\n"
        "put(other, 'b', 'banana'); put(other, 'a', 'cherry'); other.optimize(wait=True)"
    )
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code, str(index.folder)], check=True, cwd=here)
    assert {item.row.chunk.text for item in asking(index, "x")} == {"banana", "cherry"}
    assert told(index) == told(anew(index))


def test_searches_go_on_while_rows_change_and_segments_are_made(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MERGE_ROWS", 4)
    put(index, "still", "apple banana")
    wrong: list[object] = []
    done = threading.Event()

    def look() -> None:
        other = Index.open(index.folder, index.name, DIM)
        while not done.is_set():
            texts = [item.row.chunk.text for item in asking(other, "apple")]
            if texts.count("apple banana") != 1 or sum(text.startswith("turn") for text in texts) > 1:
                wrong.append(texts)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(25):
        put(index, "turns", f"turn {i} apple")
        if index.wants_optimizing():
            index.optimize()
    done.set()
    for thread in threads:
        thread.join()
    index.close()
    assert wrong == []
    assert {item.row.chunk.text for item in asking(index, "x")} == {"apple banana", "turn 24 apple"}
    assert told(index) == told(anew(index))


def test_numbers_of_rows_alone_do_not_deceive(index: Index) -> None:
    for document in ("a", "b", "c"):
        put(index, document, "apple")
    told(index)
    other = Index.open(index.folder, index.name, DIM)
    other.delete(["a"])
    put(other, "d", "apple apple")
    assert np.allclose(*([bm25 for _, bm25 in told(handle)] for handle in (index, anew(index))))
    assert {item.row.chunk.document for item in asking(index, "apple")} == {"b", "c", "d"}
