"""Room for keys and values that is used again: by answers that fit it, never two at once, and not after a removal."""

from __future__ import annotations

import torch

from factform.model.kvroom import STEP, Rooms
from factform.model.reader import Reader
from factform.records import Prompt


def rooms(tiny: Reader, kept: int = 1 << 30) -> Rooms:
    return Rooms(tiny.weights.config, torch.float32, torch.device("cpu"), kept=kept)


def test_what_is_given_back_is_lent_again_and_to_one_alone(tiny: Reader) -> None:
    pool = rooms(tiny)
    first = pool.lend(300)
    assert first.cache.keys.shape[3] == 2 * STEP
    first.cache.length = 17
    pool.give_back(first)
    again, other = pool.lend(290), pool.lend(290)
    assert again.cache is first.cache
    assert again.cache.length == 0
    assert other.cache is not first.cache


def test_a_room_far_too_large_or_too_small_is_left(tiny: Reader) -> None:
    pool = rooms(tiny)
    large = pool.lend(5 * STEP)
    pool.give_back(large)
    small = pool.lend(STEP)
    assert small.cache is not large.cache
    pool.give_back(small)
    assert pool.lend(5 * STEP).cache is large.cache


def test_no_more_is_kept_than_asked(tiny: Reader) -> None:
    one = rooms(tiny).lend(STEP).cache
    pool = rooms(tiny, kept=2 * (one.keys.nbytes + one.values.nbytes))
    lent = [pool.lend(STEP) for _ in range(3)]
    for each in lent:
        pool.give_back(each)
    assert {id(pool.lend(STEP).cache) for _ in range(2)} == {id(each.cache) for each in lent[1:]}


def test_nothing_lent_before_a_removal_is_kept(tiny: Reader) -> None:
    pool = rooms(tiny)
    free, used = pool.lend(STEP), pool.lend(STEP)
    pool.give_back(free)
    pool.clear()
    pool.give_back(used)
    assert pool.lend(STEP).cache not in (free.cache, used.cache)


def test_answers_in_used_room_are_those_in_fresh(tiny: Reader) -> None:
    prompts = [Prompt("<|im_start|>user\n", (f"Rent {n}.\n" * 9,), f"Rent {n}?<|im_end|>\n") for n in range(4)]

    def told(reader: Reader, prompt: Prompt) -> tuple[str, float]:
        generation = reader.generate(prompt, mode="reuse", max_tokens=12)
        return generation.text, generation.logprob

    used = [told(tiny, prompt) for prompt in prompts]
    assert len(tiny.store.rooms._free) == 1
    for prompt, before in zip(prompts, used, strict=True):
        tiny.store.rooms.clear()
        assert told(tiny, prompt) == before


def test_forgetting_a_text_gives_the_room_up(tiny: Reader) -> None:
    tiny.generate(Prompt("<|im_start|>user\n", ("Rent.\n",), "Rent?<|im_end|>\n"), mode="reuse", max_tokens=2)
    assert tiny.store.rooms._free
    tiny.store.forget({"x"})
    assert not tiny.store.rooms._free
