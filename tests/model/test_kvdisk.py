"""Blocks on disk: what comes back is what went in, or nothing at all."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
import torch

from factform.ids import sha256_text
from factform.model.kv import Block, BlockKV, Stored, encode_blocks, make_block, pack
from factform.model.kvdisk import DiskTier
from factform.model.kvstore import BlockStore
from factform.model.reader import Reader

BUDGET = 1 << 24


def name(text: str = "rent") -> str:
    return f"{sha256_text(text)}.{'0' * 32}"


def block(stored: Stored = "int8", seed: int = 0, tokens: int = 9) -> BlockKV:
    g = torch.Generator().manual_seed(seed)
    return pack(BlockKV(*torch.randn(2, 2, 2, tokens, 4, generator=g)), stored)


def put(tier: DiskTier, name: str, block: BlockKV) -> Path:
    unfinished = tier.write(name, block)
    assert unfinished is not None
    tier.accept(unfinished, name)
    return tier.folder / f"{name}.safetensors"


def same(one: BlockKV, two: BlockKV | None) -> bool:
    return two is not None and all(
        torch.equal(a, b) and a.dtype == b.dtype
        for a, b in zip(one.tensors().values(), two.tensors().values(), strict=True)
    )


@pytest.mark.parametrize("stored", ["int8", "float16", "float32"])
def test_what_is_written_is_read_by_any_process(tmp_path: Path, stored: Stored) -> None:
    put(DiskTier(tmp_path, BUDGET), name(), block(stored))
    found, damaged = DiskTier(tmp_path, BUDGET).read(name())
    assert same(block(stored), found)
    assert not damaged
    assert DiskTier(tmp_path, BUDGET).read(name("other")) == (None, False)


def test_every_damage_is_noticed_and_the_file_deleted(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, BUDGET)
    path = put(tier, name(), block())
    good, rng = path.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(good[:8], "little")
    flipped = [*range(header), *(rng.randrange(header, len(good)) for _ in range(200))]
    damages = [good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1 :] for at in flipped]
    damages += [good[:length] for length in (0, 1, 7, 8, 9, header, header + 1, len(good) - 1)]
    damages += [good + b"\0", b"\0" * len(good), rng.randbytes(len(good)), b"\xff" * 8 + good[8:]]
    harmless = 0
    for data in damages:
        path.write_bytes(data)
        found, damaged = tier.read(name())
        if found is None:
            assert damaged
            assert not path.exists()
        else:  # a bit of the header that says nothing, such as white space: then nothing may be lost
            harmless += 1
            assert same(block(), found)
    assert harmless < len(damages) / 20


def test_a_file_under_another_name_is_no_entry(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, BUDGET)
    put(tier, name("rent"), block()).rename(tmp_path / f"{name('deposit')}.safetensors")
    assert tier.read(name("deposit")) == (None, True)
    assert list(tmp_path.iterdir()) == []


def test_the_least_recently_used_go_when_the_budget_is_full(tmp_path: Path) -> None:
    size = put(DiskTier(tmp_path / "size", BUDGET), name(), block()).stat().st_size
    tier = DiskTier(tmp_path / "blocks", 3 * size)
    now = time.time()
    for age, text in enumerate(("oldest", "old", "young")):
        os.utime(put(tier, name(text), block()), (now - 100 + age, now - 100 + age))
    tier.read(name("oldest"))
    put(tier, name("new"), block())
    tier.make_room()
    left = {text for text in ("oldest", "old", "young", "new") if tier.read(name(text))[0]}
    assert left == {"oldest", "young", "new"}
    assert tier.size() == {"entries": 3, "bytes": 3 * size}


def test_processes_that_write_at_once_stay_near_the_budget(tmp_path: Path) -> None:
    size = put(DiskTier(tmp_path / "size", BUDGET), name(), block()).stat().st_size
    tiers = [DiskTier(tmp_path / "blocks", 40 * size) for _ in range(3)]
    for i in range(90):
        put(tiers[i % 3], name(str(i)), block())
        tiers[i % 3].make_room()
        assert tiers[0].size()["bytes"] <= (40 + 3 * 2) * size
    assert tiers[0].size()["entries"] >= 37


def test_what_is_larger_than_the_budget_is_not_written(tmp_path: Path) -> None:
    assert DiskTier(tmp_path, 100).write(name(), block()) is None
    assert list(tmp_path.iterdir()) == []


def test_no_budget_deletes_what_is_there(tmp_path: Path) -> None:
    put(DiskTier(tmp_path, BUDGET), name(), block())
    assert DiskTier(tmp_path, 0).size() == {"entries": 0, "bytes": 0}


def test_a_text_goes_whatever_model_and_process_made_it(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, BUDGET)
    for other in ("0", "1"):
        put(tier, f"{sha256_text('rent')}.{other * 32}", block())
    kept = put(tier, name("deposit"), block())
    unfinished = DiskTier(tmp_path, BUDGET).write(name(), block())
    tier.remove({sha256_text("rent")})
    assert list(tmp_path.iterdir()) == [kept]
    assert unfinished is not None
    tier.accept(unfinished, name())  # the other process finds its file gone
    assert list(tmp_path.iterdir()) == [kept]


def test_what_a_crash_left_is_cleaned_up(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, BUDGET)
    put(tier, name("rent"), block())
    kept = put(tier, name("deposit"), block())
    note = tier.new_note()
    tier.note_leaving({sha256_text("nothing")}, note)
    tier.note_leaving({sha256_text("rent")}, note)
    unfinished = tier.write(name("torn"), block())
    assert unfinished is not None
    os.utime(unfinished, (time.time() - 3600,) * 2)
    after = DiskTier(tmp_path, BUDGET)
    after.make_room()
    assert list(tmp_path.iterdir()) == [kept]


def test_a_folder_that_cannot_be_written_costs_the_cache_and_nothing_else(tiny: Reader, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    tier = DiskTier(tmp_path / "file" / "blocks", BUDGET)
    store = BlockStore(tiny.weights, tiny.store.model_key, budget=0, disk=tier, counts=tmp_path / "file" / "kv")
    asked = [make_block("rent", [5, 6, 7])]
    assert same(store.get(asked)[0], store.get(asked)[0])
    assert store.counts.misses == 2


def test_a_damaged_entry_is_encoded_anew_and_the_answer_is_the_same(tiny: Reader, tmp_path: Path) -> None:
    asked = [make_block("rent", [5, 6, 7, 8]), make_block("deposit", [9, 10])]

    def store() -> BlockStore:
        return BlockStore(tiny.weights, tiny.store.model_key, budget=0, disk=DiskTier(tmp_path, BUDGET))

    expected = store().get(asked)
    for path in tmp_path.iterdir():
        data = bytearray(path.read_bytes())
        data[-3] ^= 0x10
        path.write_bytes(data)
    after = store()
    assert all(same(a, b) for a, b in zip(expected, after.get(asked), strict=True))
    assert (after.counts.damaged, after.counts.misses, after.counts.disk_hits) == (2, 2, 0)
    assert all(same(a, b) for a, b in zip(expected, after.get(asked), strict=True))
    assert (after.counts.damaged, after.counts.misses, after.counts.disk_hits) == (2, 2, 2)


def test_files_hold_no_text(tiny: Reader, tmp_path: Path) -> None:
    asked = [block_of(tiny, "A secret: the rent is 1,480 euros.")]
    BlockStore(tiny.weights, tiny.store.model_key, disk=DiskTier(tmp_path, BUDGET)).get(asked)
    (path,) = tmp_path.iterdir()
    for word in ("secret", "rent", "1,480", str(asked[0].tokens)[1:-1]):
        assert word not in path.name
        assert word.encode() not in path.read_bytes()


def block_of(reader: Reader, text: str) -> Block:
    return make_block(text, reader.encode(text))


def test_what_comes_from_disk_is_what_was_encoded(tiny: Reader, tmp_path: Path) -> None:
    asked = [make_block("rent", [5, 6, 7, 8])]
    first = BlockStore(tiny.weights, tiny.store.model_key, disk=DiskTier(tmp_path, BUDGET))
    second = BlockStore(tiny.weights, tiny.store.model_key, disk=DiskTier(tmp_path, BUDGET))
    assert same(first.get(asked)[0], encode_blocks(tiny.weights, [asked[0].tokens])[0])
    assert same(first.get(asked)[0], second.get(asked)[0])
    assert (second.counts.disk_hits, second.counts.hits) == (1, 0)
    assert second.get(asked)
    assert (second.counts.disk_hits, second.counts.hits) == (1, 1)
