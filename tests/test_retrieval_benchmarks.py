"""The retrieval benchmarks' own rules: copies made and counted, passages chosen, shares tried, a history replayed.

Nothing is timed, and no judged set is read.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from factform.facts.distinct import words_of
from factform.facts.embed import Embedder
from factform.facts.rerank import WEIGHT
from factform.facts.search import BM25_WEIGHT
from factform.facts.store import DataLayer
from factform.ids import sha256_text
from factform.project import Project
from factform.records import Chunk, Hit, Source

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The benchmark's modules by name; they are scripts, so their folder has to be on the path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    import replay
    from harness import ablations, copies, encoded, facts_table, judged, quality, shares

    modules = (replay, ablations, copies, encoded, facts_table, judged, quality, shares)
    yield {module.__name__.rpartition(".")[2]: module for module in modules}
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"harness", "replay"}:
            del sys.modules[name]


def hit(rank: int, document: str, text: str, score: float = 0.0) -> Hit:
    chunk = Chunk(f"{document}-{rank}", document, "v", 0, len(text), text, sha256_text(text), document)
    return Hit(rank, chunk, score or 1 / rank, {})


def judged_set(parts: dict[str, ModuleType], texts: dict[str, str], asked: dict[str, tuple[str, str]]) -> Any:
    sources = tuple(Source(name, text.encode(), name, "text", name) for name, text in texts.items())
    queries = {query: question for query, (question, _) in asked.items()}
    return parts["judged"].JudgedSet("made", sources, queries, {query: {d: 1} for query, (_, d) in asked.items()})


# --- copies ---------------------------------------------------------------------------------

TEXT = "The rent is 480 euros, paid monthly. It can not be raised before 2027. " + "A sentence of some words more. " * 8


def test_each_kind_of_edit_does_what_its_name_says(parts: dict[str, ModuleType]) -> None:
    kinds = parts["copies"].KINDS
    assert kinds["the same"](TEXT) == TEXT
    assert kinds["set otherwise"](TEXT) != TEXT
    assert words_of(kinds["set otherwise"](TEXT)) == words_of(TEXT)
    assert kinds["a sentence in front"](TEXT).endswith(TEXT)
    fewer = kinds["words left out"](TEXT).split()
    assert 0 < len(TEXT.split()) - len(fewer) <= len(TEXT.split()) / 25
    assert re.findall(r"\d+|not", " ".join(fewer)) == re.findall(r"\d+|not", TEXT)
    other = kinds[parts["copies"].CHANGED]
    assert other("It was 9 of 10.") == "It was 10 of 11."
    assert other("It is so.") == "It is not so."


def test_a_fifth_of_the_documents_is_there_twice(parts: dict[str, ModuleType]) -> None:
    texts = {f"d{i:03d}": f"Number {i}: {TEXT}" for i in range(100)}
    made = parts["copies"].with_copies(judged_set(parts, texts, {}))
    assert len(made.judged.sources) == 120
    assert len({name for name, _ in made.of.values()}) == 20
    assert {kind for _, kind in made.of.values()} == set(parts["copies"].KINDS)
    # What an edit does not change has no copy.
    bare = {f"d{i:03d}": "word" for i in range(100)}
    assert {kind for _, kind in parts["copies"].with_copies(judged_set(parts, bare, {})).of.values()} == {
        "the same",
        "set otherwise",
        "a sentence in front",
    }


def test_a_repeat_is_worth_nothing_and_what_says_otherwise_is_no_repeat(parts: dict[str, ModuleType]) -> None:
    copies = parts["copies"]
    of = {"a-copy": ("a", "the same"), "b-copy": ("b", copies.CHANGED)}
    made = copies.Copies(judged_set(parts, {}, {}), of)
    hits = [hit(i, name, name) for i, name in enumerate(["a-copy", "a", "b", "b-copy", "a"], 1)]
    assert copies.places(hits, made) == ["a", "a again", "b", "b-copy"]
    assert parts["ablations"].repeats(hits, made) == 2
    assert copies.lost(hits, hits, made) == (1, 0)
    assert copies.lost(hits, hits[:3], made) == (1, 1)
    assert copies.lost(hits[:3], hits[:3], made) == (0, 0)


def test_the_looser_rule_takes_what_shares_most_runs_of_words(parts: dict[str, ModuleType]) -> None:
    changed = TEXT.replace("480", "490")
    hits = [hit(1, "a", TEXT), hit(2, "b", changed), hit(3, "c", "Something else, said in other words altogether.")]
    assert [h.chunk.document for h in parts["copies"].loosely_apart(hits)] == ["a", "c"]
    assert len(parts["copies"].loosely_apart([hit(1, "a", "—"), hit(2, "b", "…")])) == 2


# --- selection ------------------------------------------------------------------------------


def test_passages_are_chosen_within_the_budget(parts: dict[str, ModuleType]) -> None:
    ablations = parts["ablations"]
    hits = [hit(1, "a", "one two three"), hit(2, "a", "1 2 3 4 5"), hit(3, "b", "one two"), hit(4, "c", "x")]
    sizes = {ablations.search_text(h.chunk): len(h.chunk.text.split()) for h in hits}

    class Alike:
        """One and three are the same, the others unlike everything."""

        def encode(self, texts: list[str]) -> Any:
            return np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)

    def of(arm: str, tokens: int) -> list[int]:
        return [h.rank for h in ablations.SELECTIONS[arm](hits, tokens, sizes, Alike())]

    assert of("best that fit", 6) == [1, 3, 4]
    assert of("until one does not fit", 6) == [1]
    assert of("until one does not fit", 8) == [1, 2]
    assert of("one of each document", 6) == [1, 3, 4]
    assert of("one of each document", 99) == [1, 3, 4]
    # The third is worth 1/3 and as near to the first as can be, the fourth 1/4.
    assert of("marginal relevance", 99) == [1, 2, 4, 3]


def test_a_smaller_set_keeps_what_is_right(parts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts["ablations"], "DOCUMENTS", 3)
    whole = judged_set(parts, {f"d{i}": "text" for i in range(9)}, {"q": ("what", "d7"), "r": ("who", "d2")})
    some = parts["ablations"].smaller(whole)
    assert len(some.sources) == 3
    assert {"d7", "d2"} < {source.document for source in some.sources}
    assert some.name != whole.name
    assert parts["ablations"].smaller(some) == some


def test_headers_are_away_for_the_block_only(parts: dict[str, ModuleType]) -> None:
    chunk = hit(1, "Title", "text").chunk
    with parts["ablations"].without_headers():
        assert parts["ablations"].search_text(chunk) == "text"
    assert parts["ablations"].search_text(chunk) == "Title\ntext"


# --- shares ---------------------------------------------------------------------------------


def test_the_present_shares_rank_as_the_search_does(
    parts: dict[str, ModuleType], tmp_path: Path, tiny_embedder_dir: Path
) -> None:
    shares = parts["shares"]
    encoder = parts["encoded"].KeptEncoder(Embedder.open(tiny_embedder_dir), tmp_path / "kept")
    words = ["rent", "house", "flat", "garden", "roof", "door", "window", "wall", "street", "town"]
    pick = random.Random(0)
    texts = {f"d{i:02d}": " ".join(pick.choices(words, k=12)) for i in range(60)}
    judged = judged_set(parts, texts, {"q": ("rent of a house with garden", "d03")})
    with parts["ablations"].filled(judged, tmp_path / "store", encoder) as layer:
        assert isinstance(layer, DataLayer)
        found = shares.seen(layer, encoder, judged.queries["q"])
        hits = layer.search(judged.queries["q"], k=50).hits
        wanted = list(dict.fromkeys(h.chunk.document for h in hits))
        assert shares.order(found, BM25_WEIGHT, WEIGHT)[: len(wanted)] == wanted
        assert shares.order(found, BM25_WEIGHT, 0.0)[: len(wanted)] != wanted
        grid = shares.tried(layer, encoder, judged, ["q"])
    assert grid.shape == (len(shares.WORDS), len(shares.LATE), 1)
    again = parts["encoded"].KeptEncoder(Embedder.open(tiny_embedder_dir), tmp_path / "kept")
    assert again.tokens_of("d03\n" + texts["d03"]).shape[1] == encoder.dim  # kept on disk


def test_the_pair_for_a_set_is_chosen_without_it(parts: dict[str, ModuleType]) -> None:
    shares = parts["shares"]
    one, other = (np.full((len(shares.WORDS), len(shares.LATE), 4), 0.5) for _ in range(2))
    one[0, 1], other[3, 2] = 0.9, 0.8
    got = shares.fitted({"one": one, "other": other})
    assert got["best"] == {"words": 0.05, "late": 0.1}
    assert got["sets"]["one"]["chosen_without"] == {"words": 0.2, "late": 0.2}
    assert got["sets"]["one"]["without_minus_present"]["value"] == 0
    assert got["sets"]["other"]["best_minus_present"]["value"] == 0
    assert got["sets"]["one"]["best_minus_present"]["value"] == pytest.approx(0.4)
    text = parts["quality"].shares(json.loads(json.dumps(got)))
    assert "| one | 4 | 0.500 | 0.900 |" in text
    assert text.endswith("present 0.3 and 0.4, best 0.05 and 0.1.")


# --- replay ---------------------------------------------------------------------------------


def event(seq: int, op: str, path: str, text: str = "", old: str = "") -> dict[str, Any]:
    return {"seq": seq, "op": op, "path": path, "commit": str(seq), "text": text, "old_path": old or None}


EVENTS = [
    event(1, "add", "a.md", "# Leave\n\nStaff have thirty days of leave a year.\n"),
    event(2, "add", "b.md", "# Travel\n\nTrains are booked in second class only.\n"),
    event(3, "update", "a.md", "# Leave\n\nStaff have thirty days of leave a year, and five more after ten years.\n"),
    event(4, "rename", "c.md", "# Travel\n\nTrains are booked in second class only.\n", "b.md"),
    event(5, "delete", "a.md"),
]


def test_a_replay_that_was_stopped_goes_on(
    parts: dict[str, ModuleType], tmp_path: Path, tiny_embedder_dir: Path
) -> None:
    replay = parts["replay"]
    Project.init(tmp_path / "project").close()
    (tmp_path / "project" / "factform.toml").write_text(f"[model]\nembedder = {json.dumps(str(tiny_embedder_dir))}\n")
    notes = tmp_path / "tally.json"
    with Project.open(tmp_path / "project") as project:
        replay.replay(project, EVENTS[:3], 0, float("inf"), replay.Tally(), notes)
    first = replay.load(notes)
    assert (first.runs, sum(first.events.values())) == (2, 3)
    with Project.open(tmp_path / "project") as project:
        tree = replay.replay(project, EVENTS, 3, float("inf"), first, notes)
        held = {info.document: info.sha256 for info in project.facts.documents()}
    assert held == {name: replay.digest(text) for name, text in tree.items()}
    assert list(tree) == ["history/c.md"]
    told = replay.load(notes)
    assert told.events == {"add": 2, "update": 1, "rename": 1, "delete": 1}
    assert told.failures == []
    assert told.checks["listed"] == 5
    assert told.checks["removed document not found"] == 2
    assert sum(told.ranks.values()) == 4


def test_a_wrong_store_fails_the_checks(parts: dict[str, ModuleType], tmp_path: Path, tiny_embedder_dir: Path) -> None:
    replay = parts["replay"]
    Project.init(tmp_path / "project").close()
    (tmp_path / "project" / "factform.toml").write_text(f"[model]\nembedder = {json.dumps(str(tiny_embedder_dir))}\n")
    tally, tree = replay.Tally(), {"history/a.md": EVENTS[0]["text"]}
    with Project.open(tmp_path / "project") as project:
        replay.look(project, EVENTS[0], {}, tree, tally)  # nobody took it in
        project.add_sources([Source("history/b.md", EVENTS[1]["text"].encode(), "b.md")])
        replay.look(project, event(9, "delete", "b.md"), {"history/b.md": EVENTS[1]["text"]}, {}, tally)
    assert [f["check"] for f in tally.failures] == [
        "listed",
        "new words found",
        "listed",
        "removed document not found",
    ]


def test_words_are_compared_as_a_reader_sees_them(parts: dict[str, ModuleType]) -> None:
    line = "The [Privacy Statement](/articles/privacy) and the [Addendum](https://host/x?y=1) provide <b>a</b> notice."
    new, words = parts["replay"].probe("", line, [])
    assert (new, words) == (True, "The Privacy Statement and the Addendum provide a notice")
    assert parts["replay"].has(hit(1, "d", line), words)
    assert not parts["replay"].has(hit(1, "d", line.replace("Addendum", "Annex").replace("Privacy", "Other")), words)


# --- tables ---------------------------------------------------------------------------------

PLACE = {"time": "2026-11-27T05:00:00Z", "cores": 2, "cpu": "A CPU", "commit": "0123456789abcdef"}


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}


def test_only_what_there_is_a_report_of_is_told(parts: dict[str, ModuleType]) -> None:
    block = parts["facts_table"].block
    assert block({}) == ""
    flips = {"flips": 50, "killed_the_process": 0, "reads_that_crashed": 1, "wrong_citations_verified": 0}
    flips |= {"mattered": 9, "mattered_and_named_by_doctor": 8}
    assert block({"flips.json": {"all": flips}}).splitlines()[2:] == [
        "| one byte flipped: process ended or read crashed | 0 | 1 of 50 | no |",
        "| one byte flipped: wrong citations verified | 0 | 0 of 50 | yes |",
        "| one byte flipped: what mattered and `doctor` named | all | 8 of 9 | no |",
    ]
    arms = {arm: {"ndcg@10": interval(0.74)} for arm in parts["quality"].LABELS}
    text = block({"retrieval_quality.json": {"sets": {"scifact": {"n": 9, "arms": arms}}, "environment": PLACE}})
    assert "| vectors alone | 0.740 [0.640, 0.840] |" in text
    assert "| nDCG@10 on scifact, the default configuration | >= 0.75 | 0.740 [0.640, 0.840] | no |" in text
    assert text.endswith("Ranking: 2026-11-27, 2 cores of A CPU, commit 0123456789ab, 95 % intervals in brackets.")


def test_latencies_are_held_against_what_is_asked(parts: dict[str, ModuleType]) -> None:
    told = {"n": 200, "p50": 30.0, "p90": 60.0, "p99": 160.0}
    size = {"hybrid_ms": {**told, "p50": 11.0}, "reranked_ms": {**told, "p50": 81.0}}
    fresh = {
        "saved_to_seen_by_another_process_ms": told,
        "removed_to_gone_for_another_process_ms": {**told, "p99": 40.0},
    }
    report = {
        "1000": size,
        "100000": size,
        "fresh": fresh,
        "environment": {"date": "2026-11-27", "cores": 2, "processor": "P"},
    }
    assert parts["facts_table"].block({"search_scale.json": report}).splitlines()[2:] == [
        "| hybrid search, 1,000 chunks, ms p50 | – | 11.0 | – |",
        "| hybrid search, 100,000 chunks, ms p50 | <= 12 | 11.0 | yes |",
        "| the same reranked, 1,000 chunks, ms p50 | – | 81.0 | – |",
        "| the same reranked, 100,000 chunks, ms p50 | <= 80 | 81.0 | no |",
        "| saved to found by another process, ms p50 and p99 (n=200) | <= 40 and <= 150 | 30.0 and 160 | no |",
        "| removed to gone for another process, ms p50 and p99 (n=200) | p99 <= 50 | 30.0 and 40.0 | yes |",
        "",
        "Latency: 2026-11-27, 2 cores of P.",
    ]


def test_documents_a_second_are_told_beside_the_peers(parts: dict[str, ModuleType]) -> None:
    ratio = {"median": 4.5, "low": 3.9, "high": 5.0, "n": 3, "asked": 4.0, "met": True}
    report = {
        "ratio_to_best_peer": {"own": ratio, "same": {**ratio, "median": 2.9, "met": False}},
        "forward_share": {"median": 0.9, "low": 0.88, "high": 0.93, "n": 3, "asked": 0.85, "met": True},
        "documents_per_second": {
            "factform": {"own": {"median": 40.0}},
            "txtai": {"own": {"median": 8}, "best": {"median": 9.0}},
        },
        "documents": 256,
        "engine": "8 bit, native",
        "environment": PLACE,
    }
    text = parts["facts_table"].block({"ingest.json": report})
    assert (
        "| documents a second: of the best peer's, a peer's documented settings | >= 4x | 4.50x [3.90, 5.00] | yes |"
        in text
    )
    assert "| documents a second: of the best peer's, the same chunks | >= 4x | 2.90x [3.90, 5.00] | no |" in text
    assert "| bulk load: inside the encoder's forward pass | >= 85 % | 90 % [88 %, 93 %] | yes |" in text
    assert "over 256 abstracts: factform 40.0; txtai 9.00 (" in text
