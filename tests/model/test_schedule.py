"""Several texts at once: none is changed by its neighbours, all get their turn, a fault stays where it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from factform.errors import Cancelled
from factform.form.train import adapter_shapes
from factform.ids import sha256_text
from factform.model.grammar import Constraint
from factform.model.llama import StaticCache, Weights, with_small
from factform.model.lora import Adapter, new_adapter
from factform.model.prompt import PLAIN, render
from factform.model.reader import Reader
from factform.model.schedule import Job, Scheduler, Work
from factform.records import Chunk, Generation, Mode, Passage

TEXTS = (
    "The monthly rent for unit 7 is 1,480 euros. The notice period is three months.",
    "The boiler must be serviced every 18 months by a certified technician.",
    "Revenue rose to EUR 48.2 million in the second quarter of 2025.",
)


def at_once(calls: Sequence[Callable[[], object]]) -> list[object]:
    """What every call gave or raised, each in a thread of its own."""
    given: list[object] = [None] * len(calls)

    def call(place: int) -> None:
        try:
            given[place] = calls[place]()
        except Exception as error:
            given[place] = error

    threads = [threading.Thread(target=call, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return given


def some_adapter(weights: Weights, seed: int) -> Adapter:
    shapes, layers = adapter_shapes(weights.config), weights.config.layers
    adapter = new_adapter(shapes, layers, rank=2, alpha=4, seed=seed, device=torch.device("cpu"))
    with torch.no_grad():
        for layer in adapter.layers:
            for pair in layer.values():
                pair.b.normal_(std=0.2, generator=torch.Generator().manual_seed(seed))
    return adapter


def passage(text: str) -> Passage:
    return Passage("1", Chunk("c", "d", "v", 0, len(text), text, sha256_text(text), ""))


def mixed(reader: Reader, limit: int) -> list[Callable[[], Generation]]:
    """Eight requests of different lengths, modes, adapters and constraints."""
    kinds: list[tuple[str, str | None, Mode, bool, int]] = [
        (TEXTS[0], None, "exact", True, limit),
        (TEXTS[1], "one@1", "reuse", True, limit),
        (TEXTS[2], "two@1", "reuse", True, limit),
        (TEXTS[0], "one@1", "exact", True, limit // 2),
        (TEXTS[1], None, "reuse", False, limit),
        (TEXTS[2] * 9, "two@1", "reuse", True, limit),
        (TEXTS[0], "two@1", "exact", False, limit),
        (TEXTS[1] * 5, None, "exact", True, limit),
    ]

    def asked(text: str, adapter: str | None, mode: Mode, masked: bool, most: int) -> Callable[[], Generation]:
        given = (passage(text),)
        prompt = render("What is the rent, and who must service the boiler?", given, reader.chat)
        constraint = Constraint(PLAIN, given) if masked else None
        return lambda: reader.generate(
            prompt, adapter=adapter, mode=mode, constraint=constraint, masked=masked, max_tokens=most
        )

    for name, seed in (("one@1", 1), ("two@1", 2)):
        reader.set_adapter(name, some_adapter(reader.weights, seed))
    return [asked(*kind) for kind in kinds]


def told(generation: object) -> tuple[object, ...]:
    assert isinstance(generation, Generation), generation
    g = generation
    return g.text, g.stop, g.completion_tokens, g.interventions, g.violations, g.forced, g.drafted, g.logprob


@pytest.fixture
def quick(tiny: Reader) -> Reader:
    tiny.weights = with_small(tiny.weights)
    return tiny


def test_eight_mixed_requests_get_the_bits_they_get_alone(quick: Reader) -> None:
    calls = mixed(quick, 60)
    alone = [call() for call in calls]
    steps, texts = quick.schedule.steps, {g.text for g in alone}
    assert len(texts) > 4
    for _ in range(2):
        before = quick.schedule.steps
        together = at_once(calls)
        assert [told(g) for g in together] == [told(g) for g in alone]
        assert quick.schedule.steps - before < steps


@pytest.mark.slow
@pytest.mark.parametrize("int8", [True, False])
def test_eight_mixed_requests_of_the_default_model_get_the_texts_they_get_alone(default_dir: Path, int8: bool) -> None:
    reader = Reader.open(default_dir, model="m", digest="m", dtype=torch.float32, int8_decode=int8)
    calls = mixed(reader, 40)
    alone, together = [call() for call in calls], at_once(calls)
    assert [told(g)[:-1] for g in together] == [told(g)[:-1] for g in alone]
    if int8:
        assert [told(g) for g in together] == [told(g) for g in alone]


class Counting:
    """Jobs of `length` one-token steps on a tiny model; `barrier` lets all start together."""

    def __init__(self, reader: Reader, scheduler: Scheduler, together: int = 1):
        self.reader, self.scheduler = reader, scheduler
        self.barrier = threading.Barrier(together)
        self.done: list[str] = []
        self.taken: dict[str, int] = {}

    def run(self, name: str, length: int, *, cancel: threading.Event | None = None, fault: int = -1) -> str:
        weights = self.reader.weights
        cache = StaticCache(weights.config, length, weights.dtype, weights.device)

        def job() -> Job:
            for step in range(length):
                self.taken[name] = step
                if step == fault:
                    raise ValueError(name)
                scores = yield Work(weights, cache, [step], 1, int8=False)
                assert scores is not None
            self.done.append(name)

        def start() -> Job:
            self.barrier.wait(30)
            return job()

        self.scheduler.run(length, start, cancel)
        return name


def test_jobs_share_their_steps(tiny: Reader) -> None:
    jobs = Counting(tiny, Scheduler(), together=8)
    at_once([lambda n=n: jobs.run(str(n), 40) for n in range(8)])  # type: ignore[misc]
    assert sorted(jobs.done) == [str(n) for n in range(8)]
    assert jobs.scheduler.steps < 8 * 40 / 2


def test_a_fault_reaches_its_caller_alone(tiny: Reader) -> None:
    jobs = Counting(tiny, Scheduler(), together=3)
    got = at_once([lambda: jobs.run("a", 30), lambda: jobs.run("b", 30, fault=7), lambda: jobs.run("c", 30)])
    assert (got[0], got[2]) == ("a", "c")
    assert isinstance(got[1], ValueError)
    assert Counting(tiny, jobs.scheduler).run("d", 3) == "d"


def test_work_that_cannot_be_computed_fails_alone(tiny: Reader) -> None:
    """A token beyond the vocabulary makes the shared pass fail: the others go on as if nothing had happened."""
    scheduler, barrier = Scheduler(), threading.Barrier(2)
    weights = tiny.weights

    def run(tokens: Sequence[int]) -> list[float]:
        found: list[float] = []
        cache = StaticCache(weights.config, 40, weights.dtype, weights.device)

        def job() -> Job:
            for token in tokens:
                scores = yield Work(weights, cache, [token], 1, int8=False)
                assert scores is not None
                found.append(scores.choose(0, None)[2])

        def start() -> Job:
            barrier.wait(30)
            return job()

        scheduler.run(40, start)
        return found

    good = [5, 6, 7, 8, 9, 10] * 5
    first, second = at_once([lambda: run(good), lambda: run([*good[:3], 10**6])])
    assert isinstance(second, IndexError)
    barrier = threading.Barrier(1)
    assert first == pytest.approx(run(good), abs=1e-5)


def test_cancelling_frees_the_place_within_a_step(tiny: Reader) -> None:
    scheduler = Scheduler(batch=1)
    jobs, cancel = Counting(tiny, scheduler), threading.Event()
    given: list[object] = []

    def first() -> None:
        given.extend(at_once([lambda: jobs.run("long", 100_000, cancel=cancel)]))

    thread = threading.Thread(target=first)
    thread.start()
    while jobs.taken.get("long", 0) < 3:
        pass
    cancel.set()
    at = jobs.taken["long"]
    thread.join(30)
    assert isinstance(given[0], Cancelled)
    assert jobs.taken["long"] <= at + 2  # the step under way, and the one that had begun when the event was set
    assert jobs.run("next", 4) == "next"


def test_who_waits_in_line_can_be_cancelled_and_the_line_goes_on(tiny: Reader) -> None:
    scheduler = Scheduler(batch=1)
    jobs, stop, never = Counting(tiny, scheduler), threading.Event(), threading.Event()
    never.set()
    holder = threading.Thread(target=lambda: at_once([lambda: jobs.run("holder", 100_000, cancel=stop)]))
    holder.start()
    while "holder" not in jobs.taken:
        pass
    with pytest.raises(Cancelled, match="before its turn"):
        jobs.run("never", 5, cancel=never)
    stop.set()
    holder.join(30)
    assert jobs.run("later", 5) == "later"


@pytest.mark.parametrize("batch", [1, 8])
def test_first_come_first_served_and_no_more_than_fit(batch: int) -> None:
    """Behind one that holds the room, a large job is not overtaken by small ones that came after it."""
    scheduler, release, order = Scheduler(batch=batch, room=100), threading.Event(), list[str]()

    def holding() -> Job:
        release.wait(30)
        return _empty()

    def noting(name: str) -> Callable[[], Job]:
        def start() -> Job:
            order.append(name)
            return _empty()

        return start

    threads = [threading.Thread(target=scheduler.run, args=(90, holding))]
    threads[0].start()
    while not scheduler._inside:
        pass
    for place, (name, room) in enumerate((("large", 80), ("small", 5), ("tiny", 1))):
        threads.append(threading.Thread(target=scheduler.run, args=(room, noting(name))))
        threads[-1].start()
        while len(scheduler._line) < place + 1:
            pass
    time.sleep(0.1)
    assert order == []
    release.set()
    for thread in threads:
        thread.join(30)
    assert sorted(order) == ["large", "small", "tiny"]
    if batch == 1:
        assert order == ["large", "small", "tiny"]


def _empty() -> Job:
    yield from ()


def test_a_prompt_being_read_does_not_stop_the_others(tiny: Reader) -> None:
    """While one reads a long prompt, alone and in parts, each of its parts costs the others one step and no more."""
    scheduler, barrier = Scheduler(), threading.Barrier(2)
    weights = tiny.weights
    seen: list[str] = []

    def run(name: str, parts: Sequence[Sequence[int]], alone: bool) -> None:
        cache = StaticCache(weights.config, 900, weights.dtype, weights.device)

        def job() -> Job:
            for part in parts:
                yield Work(weights, cache, part, 0, int8=False, prompt=alone)
                seen.append(name)

        def start() -> Job:
            barrier.wait(30)
            return job()

        scheduler.run(900, start)

    at_once([lambda: run("reads", [[1] * 100] * 6, True), lambda: run("writes", [[2]] * 60, False)])
    inside = seen[seen.index("reads") : len(seen) - seen[::-1].index("reads")]
    assert inside.count("writes") >= 4
