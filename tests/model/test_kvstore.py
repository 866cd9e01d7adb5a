"""The cache: what is kept, what is given up, and what concurrent asks see."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from factform.model import kvstore
from factform.model.kv import Block, BlockKV, encode_blocks, make_block
from factform.model.kvcounts import FILE, Counts, add_counts, read_counts
from factform.model.kvdisk import DiskTier
from factform.model.kvkey import text_of
from factform.model.kvstore import BlockStore
from factform.model.reader import Reader
from factform.records import Prompt

TOKENS = 6
PROMPT = Prompt("<|im_start|>user\n", ("[1] ", "The rent is 1,480 euros.\n"), "Question: rent?")


def some(*numbers: int) -> list[Block]:
    return [make_block(str(n), range(n, n + TOKENS)) for n in numbers]


def store(tiny: Reader, blocks: float = 1000, **more: Any) -> BlockStore:
    """A store with room for so many blocks of TOKENS tokens."""
    one = encode_blocks(tiny.weights, [range(TOKENS)])[0].bytes
    return BlockStore(tiny.weights, tiny.store.model_key, budget=int(blocks * one), **more)


def missed(kept: BlockStore, *numbers: int) -> int:
    """How many of the blocks had to be encoded."""
    before = kept.counts.misses
    kept.get(some(*numbers))
    return kept.counts.misses - before


class Gate:
    """Encoding that waits until it is let through, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.reached, self.open, self.calls = threading.Event(), threading.Event(), 0
        monkeypatch.setattr(kvstore, "encode_blocks", self.encode)

    def encode(self, *arguments: Any) -> list[BlockKV]:
        self.calls += 1
        self.reached.set()
        assert self.open.wait(20)
        return encode_blocks(*arguments)


class Asking(threading.Thread):
    """One ask in a thread of its own."""

    def __init__(self, kept: BlockStore, blocks: Sequence[Block]):
        super().__init__(daemon=True)
        self.kept, self.blocks, self.found = kept, blocks, list[BlockKV]()
        self.start()

    def run(self) -> None:
        self.found = self.kept.get(self.blocks)

    def wait(self) -> list[BlockKV]:
        self.join(20)
        assert not self.is_alive()
        return self.found


# --- keeping and giving up ---------------------------------------------------------------------


def test_blocks_come_in_the_order_asked_and_are_encoded_once(tiny: Reader) -> None:
    kept = store(tiny)
    asked = [*some(1, 2), *some(1)]
    found, reused = kept.fetch(asked)
    assert found[0] is found[2]
    assert not torch.equal(found[0].keys, found[1].keys)
    assert (reused, kept.counts.misses, kept.size()["entries"]) == (0, 2, 2)
    assert kept.fetch(asked)[1] == 3 * TOKENS
    assert (kept.counts.hits, kept.counts.misses) == (2, 2)


def test_the_least_recently_used_is_given_up(tiny: Reader) -> None:
    kept = store(tiny, 3)
    for number in (1, 2, 3, 1, 4):
        kept.get(some(number))
    assert kept.size()["entries"] == 3
    assert missed(kept, 1, 3, 4) == 0
    assert missed(kept, 2) == 1


def test_an_ask_larger_than_the_budget_finds_again_what_fits(tiny: Reader) -> None:
    kept = store(tiny, 3)
    for _ in range(3):
        kept.get(some(1, 2, 3, 4, 5))
        assert kept.size()["entries"] == 3
    assert kept.counts.misses == 5 + 2 + 2
    assert missed(kept, 7, 8) == 2  # and it does not cling to what it has
    assert missed(kept, 7, 8) == 0


def test_what_begins_every_prompt_outlives_the_passages(tiny: Reader) -> None:
    kept, header = store(tiny, 3), make_block("header", range(TOKENS), first=True)
    for number in range(20):
        kept.get([header, *some(number, number + 20)])
    assert kept.counts.misses == 1 + 40


def test_an_ask_larger_than_the_budget_keeps_what_begins_every_prompt(tiny: Reader) -> None:
    kept, header = store(tiny, 3), make_block("header", range(TOKENS), first=True)
    kept.get([header])
    for _ in range(3):
        assert header.text in {text_of(name) for name in kept._blocks}
        kept.get([header, *some(1, 2, 3, 4, 5)])


def test_a_block_larger_than_the_budget_costs_no_other_its_place(tiny: Reader) -> None:
    kept = store(tiny, 2)
    kept.get(some(1, 2))
    assert kept.get([make_block("long", range(5 * TOKENS))])[0].length == 5 * TOKENS
    assert missed(kept, 1, 2) == 0


def test_nothing_is_kept_without_budget(tiny: Reader) -> None:
    kept = store(tiny, 0)
    assert (missed(kept, 1), missed(kept, 1)) == (1, 1)
    assert kept.size() == {"entries": 0, "bytes": 0}


def test_size_is_that_of_what_is_held(tiny: Reader) -> None:
    kept = store(tiny, 3.5)
    for start in range(0, 40, 2):
        held = kept.get(some(start, start + 1, start + 3))
        assert kept.size() == {"entries": 3, "bytes": sum(b.bytes for b in held)}
    kept.clear()
    assert kept.size() == {"entries": 0, "bytes": 0}


# --- forgetting --------------------------------------------------------------------------------


def test_what_is_forgotten_is_gone_and_not_kept_again_until_readmitted(tiny: Reader, tmp_path: Path) -> None:
    kept = store(tiny, disk=DiskTier(tmp_path, 1 << 24))
    (one,), (two,) = some(1), some(2)
    kept.get([one, two])
    kept.forget({one.text})
    assert kept.size()["entries"] == 1
    assert [path.name.partition(".")[0] for path in tmp_path.iterdir()] == [two.text]
    assert (missed(kept, 1), missed(kept, 1), missed(kept, 2)) == (1, 1, 0)
    assert len(list(tmp_path.iterdir())) == 1
    kept.readmit({one.text})
    assert not kept.forgetful
    assert (missed(kept, 1), missed(kept, 1)) == (1, 0)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("everything", [False, True])
def test_what_is_forgotten_while_it_is_encoded_is_answered_with_and_not_kept(
    tiny: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    kept, gate = store(tiny, disk=DiskTier(tmp_path, 1 << 24)), Gate(monkeypatch)
    asking = Asking(kept, some(1))
    assert gate.reached.wait(20)
    if everything:
        kept.clear()
    else:
        kept.forget({some(1)[0].text})
    gate.open.set()
    assert asking.wait()[0].length == TOKENS
    assert kept.size()["entries"] == 0
    assert list(tmp_path.iterdir()) == []
    assert (missed(kept, 1), missed(kept, 1)) == (1, 0 if everything else 1)  # asked again later


# --- concurrent asks ---------------------------------------------------------------------------


def test_concurrent_asks_get_the_same_blocks_each_encoded_once(tiny: Reader) -> None:
    kept, numbers = store(tiny), range(0, 60, 3)
    expected = store(tiny).get(some(*numbers))
    start, wrong = threading.Barrier(6), list[int]()

    def ask(turn: int) -> None:
        order = [*numbers[turn:], *numbers[:turn]]
        start.wait(20)
        for number, block in zip(order, kept.get(some(*order)), strict=True):
            if not torch.allclose(block.keys, expected[numbers.index(number)].keys, atol=1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(turn,)) for turn in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert (kept.counts.misses, kept.counts.hits) == (20, 100)


def test_asks_that_fight_for_a_small_budget_get_what_they_asked_for(tiny: Reader, tmp_path: Path) -> None:
    kept = store(tiny, 4, disk=DiskTier(tmp_path, 5 * 9000))
    expected = {n: block.values for n, block in enumerate(store(tiny).get(some(*range(12))))}
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for turn in range(15):
            numbers = [(seed * 5 + turn * 3 + i) % 12 for i in range(5)]
            for number, block in zip(numbers, kept.get(some(*numbers)), strict=True):
                if not torch.allclose(block.values, expected[number], atol=1e-5):
                    wrong.append(number)
            kept.forget({some(seed)[0].text})
            kept.readmit({some(seed)[0].text})

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert kept.size()["entries"] <= 4
    counted = kept.counts
    assert counted.reused_tokens + counted.encoded_tokens == 5 * 15 * 5 * TOKENS


def test_a_hit_does_not_wait_for_anothers_encoding(tiny: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store(tiny)
    kept.get(some(1))
    gate = Gate(monkeypatch)
    slow = Asking(kept, some(2))
    assert gate.reached.wait(20)
    assert Asking(kept, some(1)).wait()[0].length == TOKENS
    assert slow.is_alive()
    gate.open.set()
    slow.wait()


def test_a_second_ask_waits_for_the_first_and_encodes_nothing(tiny: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, gate = store(tiny, 0), Gate(monkeypatch)  # even where nothing is kept
    asks = [Asking(kept, some(1, 2))]
    assert gate.reached.wait(20)
    asks += [Asking(kept, some(2, 1)) for _ in range(3)]
    for ask in asks[1:]:
        ask.join(0.05)
    gate.open.set()
    found = [ask.wait() for ask in asks]
    assert gate.calls == 1
    assert all(one is found[0][0] for _, one in found[1:])


def test_whoever_waited_for_an_ask_that_failed_encodes_itself(tiny: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, first = store(tiny), threading.Event()
    reached, go = threading.Event(), threading.Event()

    def encode(*arguments: Any) -> list[BlockKV]:
        if not first.is_set():
            first.set()
            reached.set()
            assert go.wait(20)
            raise MemoryError("no room")
        return encode_blocks(*arguments)

    monkeypatch.setattr(kvstore, "encode_blocks", encode)
    failed: list[BaseException] = []

    def fail() -> None:
        try:
            kept.get(some(1))
        except MemoryError as error:
            failed.append(error)

    thread = threading.Thread(target=fail)
    thread.start()
    assert reached.wait(20)
    second = Asking(kept, some(1))
    second.join(0.05)
    go.set()
    thread.join(20)
    assert second.wait()[0].length == TOKENS
    assert len(failed) == 1
    assert missed(kept, 1) == 0


def test_asks_of_several_threads_read_in_every_passage_once(tiny: Reader) -> None:
    alone = tiny.generate(PROMPT, mode="reuse", max_tokens=8).text
    tiny.store.clear()
    missed, start, written = tiny.store.counts.misses, threading.Barrier(4), list[str]()

    def ask() -> None:
        start.wait(20)
        written.append(tiny.generate(PROMPT, mode="reuse", max_tokens=8).text)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert written == [alone] * 4
    assert tiny.store.counts.misses - missed == len(tiny.tokenize(PROMPT).encodable)


# --- counts ------------------------------------------------------------------------------------


def test_counts_are_added_up_over_processes(tiny: Reader, tmp_path: Path) -> None:
    for _ in range(2):
        kept = store(tiny, counts=tmp_path)
        kept.get(some(1))
        kept.get(some(1))
        kept.note_counts()
        kept.note_counts()
    found = read_counts(tmp_path)
    assert (found.hits, found.misses, found.reused_tokens, found.encoded_tokens) == (2, 2, 2 * TOKENS, 2 * TOKENS)
    assert found.encode_s > 0
    report = found.report()
    assert report["hit_rate"] == 0.5
    assert report["saved_s"] == pytest.approx(found.encode_s, abs=1e-3)
    assert read_counts(tmp_path / "nowhere").report()["hit_rate"] is None


def test_counts_survive_threads_and_a_torn_file(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=lambda: [add_counts(tmp_path, Counts(hits=1)) for _ in range(10)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert read_counts(tmp_path) == Counts(hits=40)
    (tmp_path / FILE).write_text('{"hits": 4')
    assert read_counts(tmp_path) == Counts()
    assert add_counts(tmp_path, Counts(misses=1))
    assert json.loads((tmp_path / FILE).read_text())["misses"] == 1


def test_savings_are_less_what_loading_took() -> None:
    found = Counts(reused_tokens=300, encoded_tokens=100, encode_s=2.0, load_s=0.5).report()
    assert (found["hit_rate"], found["saved_s"]) == (0.75, 5.5)


def test_a_block_is_had_by_its_tokens_only(tiny: Reader) -> None:
    """Who may see a passage is decided by the search: the cache has nothing to look a block up by, or to list it by."""
    public = {name for name in vars(BlockStore) if not name.startswith("_")}
    assert public == {"open", "get", "fetch", "forget", "forgetful", "readmit", "clear", "size", "note_counts"}
    kept = store(tiny)
    kept.get(some(1))
    (guess,) = some(1)
    assert kept.fetch([Block(guess.text, (9, 9))])[1] == 0  # the text's hash alone opens nothing


def test_what_begins_a_prompt_is_kept_in_16_bit_and_the_rest_in_8(tiny_dir: Path) -> None:
    reader = Reader.open(tiny_dir, model="tiny", digest="tiny", dtype=torch.float32)
    tokens = reader.tokenize(PROMPT)
    assert [block.keys.dtype for block in reader.store.get(tokens.encodable)] == [torch.float16, torch.int8, torch.int8]
    assert reader.generate(PROMPT, mode="reuse", max_tokens=1).precision == "float32, passages int8"
    assert reader.generate(PROMPT, mode="exact", max_tokens=1).precision == "float32"
    same_words = replace(tokens.encodable[0], first=False)  # a passage of the same words is another entry
    assert reader.store.get([same_words])[0].keys.dtype == torch.int8
