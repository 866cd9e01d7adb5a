"""One thread for all heavy arithmetic of the process: whoever needs some waits for its turn, first come, first served.

Knows nothing of what is computed. Every product uses all cores already, so two at once gain nothing. They lose much:
each thread that calls torch has OpenMP workers of its own, and as soon as there are more workers than cores these stop
waiting actively between products, which made answers 30 to 50 % slower (docs/log.md).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")

NAME = "factform-compute"

_pool: ThreadPoolExecutor | None = None
_making = threading.Lock()


def run(work: Callable[[], T]) -> T:
    """The result of `work`, computed in the process's one thread for that; at once if this is that thread.

    Raises what `work` raises. An interrupt is raised only when `work` has ended, so nothing changes behind its back.
    """
    if threading.current_thread().name.startswith(NAME):
        return work()
    future = _thread().submit(work)
    try:
        return future.result()
    except BaseException:
        wait([future])
        raise


def _thread() -> ThreadPoolExecutor:
    global _pool
    with _making:
        if _pool is None:
            _pool = ThreadPoolExecutor(1, thread_name_prefix=NAME)
        return _pool


def _forget() -> None:
    """A child process has none of its parent's threads."""
    global _pool, _making
    _pool, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
