"""Two steps in threads of their own: order kept, little held, nothing going on after a failure."""

from __future__ import annotations

import threading
import time

import pytest

from factform.facts.stages import AT_ONCE, Stages


def test_results_come_in_order_and_the_steps_overlap() -> None:
    both = threading.Barrier(2, timeout=10.0)

    def first(number: int) -> int:
        if number == 1:
            both.wait()  # passes only while group 0 is in the second step
        return number

    def second(number: int) -> str:
        if number == 0:
            both.wait()
        return str(number)

    with Stages(first, second) as stages:
        done = [result for number in range(6) for result in stages.put(number)]
        assert done + stages.results(leave=0) == [str(number) for number in range(6)]
        assert stages.idle


def test_no_more_is_begun_than_may_be_under_way() -> None:
    go_on, begun = threading.Semaphore(0), []

    def second(number: int) -> int:
        go_on.acquire()
        return number

    with Stages(lambda number: begun.append(number) or number, second) as stages:  # type: ignore[func-returns-value]
        for number in range(AT_ONCE):
            stages.put(number)
        assert not stages.idle
        assert stages.under_way == list(range(AT_ONCE))
        done: list[int] = []
        waiting = threading.Thread(target=lambda: done.extend(stages.put(AT_ONCE)))
        waiting.start()
        time.sleep(0.1)
        assert waiting.is_alive()
        assert AT_ONCE not in begun
        for _ in range(AT_ONCE + 1):
            go_on.release()
        waiting.join()
        assert done + stages.results(leave=0) == list(range(AT_ONCE + 1))


@pytest.mark.parametrize("step", ["first", "second"])
def test_after_a_failure_nothing_later_is_finished(step: str) -> None:
    finished: list[int] = []

    def fail(at: str, number: int) -> int:
        if at == step and number == 0:
            raise KeyboardInterrupt
        if at == "second":
            finished.append(number)
        return number

    def work() -> None:
        with Stages(lambda n: fail("first", n), lambda n: fail("second", n)) as stages:
            for number in range(4):
                stages.put(number)
            stages.results(leave=0)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert finished == []


def test_leaving_the_block_waits_for_what_has_begun() -> None:
    finished: list[int] = []

    def slow(number: int) -> int:
        time.sleep(0.1)
        finished.append(number)
        return number

    def work() -> None:
        with Stages(lambda number: number, slow) as stages:
            stages.put(7)
            time.sleep(0.02)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert finished == [7]
