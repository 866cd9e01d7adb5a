"""A process that parses documents for another one, within limits it sets on itself, and can do nothing else.

Knows nothing of stores. Started as `python -m factform.facts.sandbox_worker SECONDS MEGABYTES` by `facts/sandbox.py`,
it reads frames (a request, then the document's bytes) from its standard input and writes one frame for each. What the
limits stop, whoever started it sees as an end of the pipe or reads in the frame.

The limits: processor time and wall time of a document (the kernel ends the process), memory (whatever asks for more
gets none), no file may be written, few opened, no core dump. There is no network to forbid: no parser uses one.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from factform.errors import DocumentError
from factform.facts.parse import parse
from factform.facts.wire import LENGTH, pack, unpack
from factform.records import Parsed, Source

OPEN_FILES = 64
NEARLY = 0.9
"""Share of the memory limit from which on a failure is put down to it: libraries seldom say so themselves."""


@dataclass(frozen=True)
class Request:
    """What parsing depends on besides the bytes."""

    name: str
    media_type: str | None
    title: str | None
    max_bytes: int
    ocr: str


@dataclass(frozen=True)
class Reply:
    """A parsed document, or why there is none. After "memory" and "fault" the process ends itself."""

    outcome: Literal["parsed", "refused", "memory", "fault"]
    reason: str
    parsed: Parsed | None


STATUS = Path("/proc/self/status")

READY = b"+"
"""The first byte written: what follows is the work, not Python's start."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asked: it closes the pipe
    seconds, megabytes = float(sys.argv[1]), int(sys.argv[2])
    given, answer = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    _silence()
    limit = _limit(megabytes)
    threading.Thread(target=_end_with, args=(answer.fileno(),), daemon=True).start()
    answer.write(READY)
    answer.flush()
    while (head := _frame(given)) is not None:
        data = _frame(given)
        if data is None:
            return
        _start_clocks(seconds)
        reply = _parsed(unpack(Request, head), data, limit)
        _answer(answer, reply)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if reply.outcome in ("memory", "fault"):
            return


def _parsed(request: Request, data: bytes, limit: int) -> Reply:
    source = Source("", data, request.name, request.media_type, request.title)
    try:
        return Reply("parsed", "", parse(source, max_bytes=request.max_bytes, ocr=request.ocr))
    except DocumentError as error:
        return Reply("memory", "", None) if _peak() > NEARLY * limit else Reply("refused", str(error), None)
    except (MemoryError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else ""
        return Reply("refused" if reason else "memory", reason, None)
    except Exception as error:
        # One odd file must not end more than its own parsing; the text of the error may quote it, so it is cut.
        reason = f"{type(error).__name__}: {error!s:.200}"
        return Reply("memory" if _peak() > NEARLY * limit else "fault", reason, None)


def _answer(pipe: BinaryIO, reply: Reply) -> None:
    try:
        frame = pack(reply)
    except MemoryError:
        frame = pack(Reply("memory", "", None))
    pipe.write(LENGTH.pack(len(frame)))
    pipe.write(frame)
    pipe.flush()


def _frame(pipe: BinaryIO) -> bytes | None:
    """The next frame; None when the other end has closed the pipe."""
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    size = LENGTH.unpack(head)[0]
    data = pipe.read(size)
    return data if len(data) == size else None


def _silence() -> None:
    """Nothing a library prints may reach the pipe or a log: it could be a document's text."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _limit(megabytes: int) -> int:
    """Set the limits that hold for the process's life; returns the bytes of address space it may have."""
    limit = _address_space("VmSize") + (megabytes << 20)
    _lower(resource.RLIMIT_AS, limit)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0)
    return limit


def _lower(what: int, value: int) -> None:
    """Soft and hard limit, so that no code in this process can raise it again."""
    hard = resource.getrlimit(what)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(what, (value, value))
    except (OSError, ValueError):
        if sys.platform == "linux":  # macOS refuses some of them
            raise


def _start_clocks(seconds: float) -> None:
    """The kernel ends this process when a document takes longer, even where the one who asked is gone."""
    times = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(times.ru_utime + times.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)


def _peak() -> int:
    return _address_space("VmPeak")


def _address_space(which: str) -> int:
    """Bytes of address space this process has or had at most; 0 where the system does not say."""
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith(which + ":")).split()[1]) << 10
    except (OSError, StopIteration):
        return 0


def _end_with(pipe: int) -> None:
    """End at once when nobody can read the answer any more: whoever asked was killed in the middle of a document."""
    poll = select.poll()
    poll.register(pipe, 0)
    poll.poll()
    os._exit(1)


if __name__ == "__main__":
    main()
