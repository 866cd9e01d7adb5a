"""The process's one thread for computing: order, errors, interrupts, nesting and child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from factform import compute


def test_work_of_many_threads_is_done_in_one_never_two_at_a_time() -> None:
    inside, seen, most = [0], set(), [0]

    def work() -> int:
        seen.add(threading.get_ident())
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.002)
        inside[0] -= 1
        return threading.get_ident()

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: compute.run(work), range(24)))
    assert set(told) == seen
    assert len(seen) == 1
    assert most == [1]
    assert threading.get_ident() not in seen


def test_work_that_needs_work_does_not_wait_for_itself() -> None:
    assert compute.run(lambda: compute.run(lambda: compute.run(lambda: 7))) == 7


def test_an_error_reaches_its_caller_and_no_one_else() -> None:
    with pytest.raises(ZeroDivisionError):
        compute.run(lambda: 1 // 0)
    assert compute.run(lambda: 2) == 2


def test_first_come_first_served() -> None:
    order: list[int] = []
    gate = threading.Event()
    threads = [threading.Thread(target=compute.run, args=(gate.wait,))]
    threads[0].start()
    for n in range(5):
        threads.append(threading.Thread(target=compute.run, args=(lambda n=n: order.append(n),)))
        threads[-1].start()
        time.sleep(0.02)
    gate.set()
    for thread in threads:
        thread.join()
    assert order == list(range(5))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_an_interrupt_is_raised_when_the_work_has_ended() -> None:
    ended: list[bool] = []

    def work() -> None:
        time.sleep(0.3)
        ended.append(True)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            compute.run(work)
        assert ended == [True]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_process_gets_a_thread_of_its_own() -> None:
    code = (
        "import os, sys; from factform import compute; compute.run(lambda: 1)\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(compute.run(lambda: 5))\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 5
