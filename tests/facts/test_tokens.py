"""Token vectors: what two bits a number keep, the file against whatever may happen to it, and who lets go of what."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hash_encoder import DIM, HashEncoder
from hypothesis import given
from hypothesis import strategies as st

from factform.facts.embed import Vectors
from factform.facts.rows import search_text
from factform.facts.search import Ranking
from factform.facts.store import DataLayer
from factform.facts.tokenbits import best_matches, bits_of, width
from factform.facts.tokenfile import TokenFile
from factform.facts.tokens import TokenVectors
from factform.ids import sha256_text
from factform.project import Project
from factform.records import Chunk, Scope, Source

TEXT = b"\x01" * 32
OTHER = b"\x02" * 32


class CountingEncoder(HashEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        self.encoded += texts
        return super().encode_tokens(texts)

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
        return self.encode(texts), super().encode_tokens(texts)


def chunk(key: str, text: str, title: str = "") -> Chunk:
    return Chunk(key, key, "v", 0, len(text), text, sha256_text(text), title)


def unit(rng: np.random.Generator, rows: int, dim: int) -> Vectors:
    drawn = rng.standard_normal((rows, dim), np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


# --- bits ---------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 999))
def test_a_vector_matches_itself_exactly_whatever_its_size(tokens: int, dim: int, seed: int) -> None:
    vectors = unit(np.random.default_rng(seed), tokens, dim)
    bits = bits_of(vectors)
    assert bits.shape == (tokens, width(dim))
    for row in range(tokens):
        (match,) = best_matches(vectors[row : row + 1], [bits[row : row + 1]])[0]
        assert match == pytest.approx(1.0, rel=2e-3)  # the sum is kept in half precision


def test_cosines_are_right_on_the_mean_and_off_by_hundredths() -> None:
    rng = np.random.default_rng(1)
    question = unit(rng, 1, 384)
    near = question * np.linspace(0, 1, 2000, dtype=np.float32)[:, None]
    noise = unit(rng, 2000, 384)
    noise -= (noise @ question.T) * question
    vectors = near + noise / np.linalg.norm(noise, axis=1, keepdims=True) * np.sqrt(
        np.maximum(0, 1 - (near**2).sum(1, keepdims=True))
    )
    got = np.array([best_matches(question, [bits_of(each[None])])[0, 0] for each in vectors])
    off = got - vectors @ question[0]
    assert abs(off.mean()) < 0.005
    assert off.std() < 0.025


def test_passages_without_tokens() -> None:
    question = unit(np.random.default_rng(0), 3, 16)
    none = np.zeros((0, width(16)), np.uint8)
    assert (best_matches(question, [none]) == 0).all()
    assert best_matches(question[:0], [bits_of(question)]).shape == (1, 0)
    assert best_matches(question, [none, bits_of(question)]).max(0).min() > 0.9


# --- the file -----------------------------------------------------------------------------------


def entries(count: int, seed: int = 0) -> list[tuple[str, bytes, np.ndarray]]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    return [(f"chunk{i}", TEXT, bits_of(unit(rng, 1 + i % 40, DIM))) for i in range(count)]


def test_what_is_put_is_there_for_another_process_and_only_for_its_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.db"
    one, made = TokenFile(path, width(DIM)), entries(1200)
    assert one.get({"chunk0": TEXT}) == {}
    assert not path.exists()  # made when there is something to keep
    one.put(made)
    other = TokenFile(path, width(DIM))
    got = other.get({key: TEXT for key, _, _ in made})
    assert all((got[key] == bits).all() for key, _, bits in made)
    assert other.get({"chunk1": OTHER, "nobody": TEXT}) == {}
    other.put([("chunk1", OTHER, made[2][2])])
    assert one.get({"chunk1": TEXT}) == {}
    assert one.count() == len(made)
    one.drop(["chunk1", "nobody"])
    assert other.get({"chunk1": OTHER}) == {}
    other.close()
    one.close()


def test_only_what_is_there_is_kept_and_of_one_embedder(tmp_path: Path) -> None:
    old, new = TokenFile(tmp_path / "old.db", width(DIM)), TokenFile(tmp_path / "new.db", width(DIM))
    for each in (old, new):
        each.put(entries(5))
    old.close()
    new.keep_only({"chunk2", "chunk4", "unknown"})
    assert set(new.get({f"chunk{i}": TEXT for i in range(5)})) == {"chunk2", "chunk4"}
    assert (tmp_path / "old.db").exists()  # another process may be filling it
    new.remove_others()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == ["new.db"]
    new.close()


def test_while_another_process_writes_nothing_waits_and_nothing_fails(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "t.db", width(DIM))
    file.put(entries(3))
    other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert file.get({"chunk0": TEXT}) == {}
    file.put([("late", TEXT, entries(1)[0][2])])
    file.drop(["chunk0"])
    other.execute("COMMIT")
    other.execute("BEGIN")
    assert other.execute("SELECT count(*) FROM tokens").fetchone() == (3,)  # one that reads keeps it from being written
    file.drop(["chunk1"])
    other.execute("COMMIT")
    other.close()
    assert set(file.get({"chunk0": TEXT, "chunk1": TEXT, "late": TEXT})) == {"chunk0", "chunk1"}
    file.drop(["nobody"])  # what was refused is done now
    assert file.get({"chunk0": TEXT, "chunk1": TEXT}) == {}
    file.close()


def test_a_file_deleted_by_another_process_is_begun_anew(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "t.db", width(DIM))
    file.put(entries(3))
    (tmp_path / "t.db").unlink()
    assert file.get({"chunk0": TEXT}) == {}
    file.put(entries(1))
    assert set(file.get({"chunk0": TEXT, "chunk1": TEXT})) == {"chunk0"}
    assert (tmp_path / "t.db").is_file()
    file.close()


def test_no_flipped_byte_is_told_as_something_else(tmp_path: Path) -> None:
    made = {key: bits for key, _, bits in entries(30)}
    whole, path, draw = tmp_path / "whole.db", tmp_path / "t.db", random.Random(3)
    with_all = TokenFile(whole, width(DIM))
    with_all.put((key, TEXT, bits) for key, bits in made.items())
    with_all.close()
    data, lost = whole.read_bytes(), 0
    for _ in range(400):
        at = draw.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        file = TokenFile(path, width(DIM))
        got = file.get(dict.fromkeys(made, TEXT))
        assert all((bits == made[key]).all() for key, bits in got.items()), at
        lost += len(got) < len(made)
        file.put([("fresh", TEXT, made["chunk1"])])
        file.get({"fresh": TEXT})
        file.close()
    assert lost > 20  # it does strike what is kept


@pytest.mark.parametrize("cut", [0, 1, 100, 4096, 5000])
def test_what_a_power_cut_leaves_is_no_fault(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "t.db"
    file = TokenFile(path, width(DIM))
    file.put(entries(30))
    file.close()
    path.write_bytes(path.read_bytes()[:cut])
    again = TokenFile(path, width(DIM))
    assert again.get({"chunk29": TEXT}) == {}
    again.put(entries(30))
    again.put(entries(30))  # where the first found out what the file is like
    assert set(again.get({"chunk29": TEXT})) == {"chunk29"}
    again.close()


# --- in front of it, in memory ------------------------------------------------------------------


def test_memory_is_by_what_was_encoded_and_bounded() -> None:
    encoder = CountingEncoder()
    cache = TokenVectors(encoder, limit=4 * width(encoder.dim))  # room for four tokens
    one, two = chunk("1", "alpha beta"), chunk("2", "gamma delta")
    first = cache.of([one, two, one])
    assert encoder.encoded == ["alpha beta", "gamma delta"]
    assert (first[0] == bits_of(encoder.encode_query("alpha beta")[1])).all()
    assert (first[2] == first[0]).all()
    cache.of([two, one])
    assert len(encoder.encoded) == 2
    cache.of([chunk("1", "alpha beta", title="renamed")])
    assert encoder.encoded[2:] == [search_text(chunk("1", "alpha beta", title="renamed"))] == ["renamed\nalpha beta"]
    cache.of([two])
    assert encoder.encoded[3:] == ["gamma delta"]  # the least recently used one had to go


# --- in a store ---------------------------------------------------------------------------------


def kept(folder: Path) -> int:
    (path,) = (folder / "cache" / "tokens").glob("*.db")
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT count(*) FROM tokens").fetchone()[0]
    connection.close()
    return int(found)


def source(document: str, text: str, title: str = "") -> Source:
    return Source(document, text.encode(), f"{document}.txt", title=title or None)


def test_what_was_added_is_reranked_by_any_process_without_encoding_it_again(tmp_path: Path) -> None:
    encoder, orders = CountingEncoder(), []
    many = [source(f"d{i}", f"The monthly rent is {i},480 euros.") for i in range(100)]  # a bulk load
    with DataLayer.open(tmp_path, encoder) as layer:
        layer.add(many)
        orders.append([(hit.chunk.id, hit.score) for hit in layer.search("rent of 7").hits])
    with DataLayer.open(tmp_path, encoder) as layer:
        orders.append([(hit.chunk.id, hit.score) for hit in layer.search("rent of 7").hits])
        assert encoder.encoded == []
    for path in (tmp_path / "cache" / "tokens").iterdir():
        path.unlink()
    with DataLayer.open(tmp_path, encoder) as layer:  # computed then, and kept for the next
        orders.append([(hit.chunk.id, hit.score) for hit in layer.search("rent of 7").hits])
        assert len(encoder.encoded) == 30
        assert kept(tmp_path) == 30
    assert orders[0] == orders[1] == orders[2]


def test_they_go_with_their_chunks(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        layer.add([source("a", "alpha one"), source("b", "beta"), source("c", "gamma")])
        assert kept(tmp_path) == 3
        layer.add([source("a", "alpha two")])
        assert kept(tmp_path) == 3
        layer.remove(["b"])
        assert kept(tmp_path) == 2
        layer.search("alpha", scope=Scope(as_of="1"))  # of what is no longer there nothing is put by
        assert kept(tmp_path) == 2
        layer.rebuild()
        assert kept(tmp_path) == 2
        layer._tokens.put([chunk("nobody", "left by a crash")], [unit(np.random.default_rng(0), 2, DIM)], hold=False)
        assert kept(tmp_path) == 3
        layer._current.get().restore(layer._current.get().version() - 1)  # a crash: the next opening repairs
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        assert {hit.chunk.text for hit in layer.search("alpha").hits} == {"alpha two", "gamma"}
        assert kept(tmp_path) == 2


def test_a_new_title_is_encoded_anew(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    with DataLayer.open(tmp_path, encoder) as layer:
        layer.add([source("a", "alpha one", title="Old")])
        before = layer.search("alpha New").hits[0].scores["maxsim"]
        layer.add([source("a", "alpha one", title="New")])
        layer.forget_memory()
        encoder.encoded.clear()
        assert layer.search("alpha New").hits[0].scores["maxsim"] > before
        assert encoder.encoded == []
        assert kept(tmp_path) == 1


def test_none_where_nobody_would_use_them(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path / "none", HashEncoder(), ranking=Ranking(rerank="none")) as layer:
        layer.add([source("a", "alpha")])
        layer.search("alpha")
    with DataLayer.open(tmp_path / "memory", HashEncoder(), keep_tokens=False) as layer:
        layer.add([source("a", "alpha")])
        assert layer.search("alpha").hits[0].scores["maxsim"] > 0
    assert not list(tmp_path.glob("*/cache/tokens"))


class SlowEncoder(HashEncoder):
    """Meanwhile somebody does something."""

    meanwhile: Callable[[], None] | None = None

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        if self.meanwhile is not None:
            self.meanwhile()
        return super().encode_tokens(texts)


def test_what_goes_while_it_is_computed_is_not_put_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "encoder", lambda *_: HashEncoder())
    for do in ("erase", "remove"):
        with Project.init(tmp_path / do) as project:
            project.facts.add([source("a", "alpha secret"), source("b", "alpha beta")])
            folder = project.state
            (path,) = (folder / "cache" / "tokens").glob("*.db")
            path.unlink()
            slow = SlowEncoder()
            with DataLayer.open(folder, slow) as other:

                def meanwhile(project: Project = project, do: str = do) -> None:
                    project.erase(["a"]) if do == "erase" else project.facts.remove(["a"])

                slow.meanwhile = meanwhile
                other.search("alpha")
                slow.meanwhile = None
                with sqlite3.connect(path) as connection:
                    left = [row[0] for row in connection.execute("SELECT chunk FROM tokens")]
                connection.close()
                assert left == [hit.chunk.id for hit in project.facts.search("alpha").hits]
                assert len(left) == 1


def test_what_nobody_would_use_any_more_goes(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        layer.add([source("a", "alpha")])
    with DataLayer.open(tmp_path, HashEncoder(), ranking=Ranking(rerank="none")) as layer:
        assert kept(tmp_path) == 1
        layer.add([source("b", "beta")])
    assert not list((tmp_path / "cache").glob("tokens/*"))


def test_erasing_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "encoder", lambda *_: HashEncoder())
    with Project.init(tmp_path / "p") as project:
        project.facts.add([source("a", "alpha"), source("b", "beta")])
        folder = project.state
        assert kept(folder) == 2
        project.erase(["a"])
        assert not list(folder.glob("cache/tokens/*"))
        assert [hit.chunk.text for hit in project.facts.search("beta").hits] == ["beta"]
        assert kept(folder) == 1
