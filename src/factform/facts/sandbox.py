"""Parsing in processes of their own, limited in time and memory: a hostile file costs itself and nothing else.

Knows nothing of formats, ledgers or indexes. A worker (`facts/sandbox_worker.py`) is started when one is needed, used
again while all goes well, replaced after some documents and after any failure, and ends with this process. Small plain
text is parsed here: its reader is linear, with no library behind it, and a store of notes should not pay for a process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from factform.errors import DocumentError
from factform.facts.parse import media_type, parse
from factform.facts.sandbox_worker import READY, Reply, Request
from factform.facts.wire import LENGTH, pack, unpack
from factform.records import Parsed, Source

DOCUMENTS = 500
"""Documents after which a worker is replaced: what a library leaks goes with it."""

START_S = 60.0
"""A worker that has not started by then never will; 0.1 to 0.2 s are usual."""

HERE_BYTES = {"text": 256 << 10, "markdown": 32 << 10}
"""Plain text and Markdown up to this size are parsed in this process (docs/design/data-layer.md says why)."""

PIECE = 1 << 20
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR")
"""Of the environment a worker sees this much: keys and tokens are nothing for a parser."""


@dataclass(frozen=True)
class Limits:
    """What parsing one document may take: seconds, MB of memory beyond the parser's own, bytes of the file."""

    seconds: float = 60.0
    memory_mb: int = 1024
    max_bytes: int = 50_000_000
    ocr: str = ""  # language of the text recognized in pages that are pictures; "": none is
    workers: int = 0  # 0: one for each core, up to four


class _Ended(Exception):
    """The worker is gone."""


class _Late(Exception):
    """The worker has not answered in time."""


class _Worker:
    """One process and its two pipes."""

    def __init__(self, limits: Limits):
        package = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-P", "-m", "factform.facts.sandbox_worker", str(limits.seconds)]
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._process = subprocess.Popen(
            [*command, str(limits.memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={**environment, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,  # Ctrl-C at the terminal is for this process only
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)
        os.set_blocking(self._out.fileno(), False)
        self._ready = False
        self.documents = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Request, data: bytes, seconds: float, most: int) -> bytes:
        """The frame that answers `request`. Raises _Ended, _Late; MemoryError when the frame is longer than `most`."""
        if not self._ready:
            self._read(len(READY), time.monotonic() + START_S)
            self._ready = True
        self.documents += 1
        deadline = time.monotonic() + seconds
        head = pack(request)
        for part in (LENGTH.pack(len(head)) + head + LENGTH.pack(len(data)), data):
            self._write(memoryview(part), deadline)
        size = LENGTH.unpack(self._read(LENGTH.size, deadline))[0]
        if size > most:
            raise MemoryError
        return self._read(size, deadline)

    def end(self) -> int:
        """End the process, however busy, and take it off the system's books; how it ended, as `Popen` says it."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._in, self._out):
            with contextlib.suppress(OSError):
                pipe.close()
        return code

    def end_code(self) -> int:
        """How a process that closed its pipes ended, given the moment it takes."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        return self.end()

    def _write(self, data: memoryview, deadline: float) -> None:
        while data:
            self._wait(self._in.fileno(), select.POLLOUT, deadline)
            try:
                data = data[os.write(self._in.fileno(), data[:PIECE]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _Ended from error

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(self._out.fileno(), select.POLLIN, deadline)
            try:
                piece = os.read(self._out.fileno(), min(PIECE, size - len(data)))
            except BlockingIOError:
                continue
            if not piece:
                raise _Ended
            data += piece
        return bytes(data)

    @staticmethod
    def _wait(handle: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(handle, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(1000 * left):
            raise _Late


class Sandbox:
    """Where documents are parsed. Safe to use from several threads."""

    def __init__(self, limits: Limits | None = None):
        self.limits = limits or Limits()
        self.workers = self.limits.workers or min(4, len(os.sched_getaffinity(0)))
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        # Not in __del__: workers must also go when the interpreter does, and in that order.
        self._finalizer = weakref.finalize(self, _end_all, self._all)

    def close(self) -> None:
        """End all workers. The sandbox may be used again: it then starts new ones."""
        with self._lock:
            threads, self._threads = self._threads, None
            self._idle.clear()
            _end_all(self._all)
        if threads is not None:
            threads.shutdown(cancel_futures=True)

    def rest(self) -> None:
        """Keep one idle worker for the next document, end the others."""
        with self._lock:
            going, self._idle = self._idle[1:], self._idle[:1]
        for worker in going:
            self._end(worker)

    def parse(self, source: Source) -> Parsed:
        """As `parse.parse`, within the limits. Raises DocumentError, its message the reason for the receipt."""
        if _parsed_here(source):
            return parse(source, max_bytes=self.limits.max_bytes)
        if len(source.data) > self.limits.max_bytes or not source.data:
            return parse(source, max_bytes=self.limits.max_bytes)  # refused before anything is read
        reply = self._ask(source)
        if reply.parsed is not None:
            return reply.parsed
        if reply.outcome == "memory":
            raise self._too_much()
        if reply.outcome == "fault":
            raise DocumentError(f"its parser failed ({reply.reason}); report this with the file if you can")
        raise DocumentError(reply.reason)

    def start(self, source: Source) -> Future[Parsed]:
        """Begin to parse `source`, `workers` of them at a time; what needs no worker is parsed at once."""
        if not _parsed_here(source):
            with self._lock:
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="factform-parse")
                return self._threads.submit(self.parse, source)
        done: Future[Parsed] = Future()
        try:
            done.set_result(self.parse(source))
        except Exception as error:
            done.set_exception(error)
        return done

    # --- workers --------------------------------------------------------------------------------

    def _ask(self, source: Source) -> Reply:
        limits = self.limits
        request = Request(source.name, source.media_type, source.title, limits.max_bytes, limits.ocr)
        worker = self._take()
        try:
            # A worker cannot make more than it may hold, so a longer answer is no honest one.
            frame = worker.ask(request, source.data, limits.seconds, limits.memory_mb << 20)
            reply = unpack(Reply, frame)
        except _Late:
            self._end(worker)
            raise self._too_long() from None
        except MemoryError:
            self._end(worker)
            raise self._too_much() from None
        except _Ended:
            raise self._died(worker) from None
        except ValueError:
            self._end(worker)
            raise DocumentError("its parser answered outside the protocol; report this with the file") from None
        except BaseException:
            self._end(worker)
            raise
        if reply.outcome in ("memory", "fault") or worker.documents >= DOCUMENTS:
            self._end(worker)
        else:
            with self._lock:
                self._idle.append(worker)
        return reply

    def _take(self) -> _Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            worker = _Worker(self.limits)
        except OSError as error:
            raise DocumentError(f"no process could be started to parse it ({error.strerror}); add it again") from error
        with self._lock:
            self._all.add(worker)
        return worker

    def _end(self, worker: _Worker) -> int:
        with self._lock:
            self._all.discard(worker)
        return worker.end()

    def _died(self, worker: _Worker) -> DocumentError:
        with self._lock:
            self._all.discard(worker)
        code = worker.end_code()
        if code in (-signal.SIGALRM, -signal.SIGXCPU):
            return self._too_long()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return DocumentError(
            f"its parser died ({how}); a damaged or hostile file, or one that needs more memory than the "
            f"{self.limits.memory_mb:,} MB that are allowed (facts.parse_memory_mb)"
        )

    def _too_long(self) -> DocumentError:
        return DocumentError(
            f"parsing it takes longer than {self.limits.seconds:g} s, the limit (facts.parse_seconds): split the "
            "document, or raise the limit"
        )

    def _too_much(self) -> DocumentError:
        return DocumentError(
            f"parsing it takes more than {self.limits.memory_mb:,} MB of memory, the limit (facts.parse_memory_mb): "
            "split the document, or raise the limit"
        )


def _parsed_here(source: Source) -> bool:
    if len(source.data) > max(HERE_BYTES.values()):
        return False
    try:
        return len(source.data) <= HERE_BYTES.get(media_type(source), -1)
    except DocumentError:
        return True  # refused for its media type, before anything is read


def _end_all(workers: set[_Worker]) -> None:
    for worker in list(workers):
        worker.end()
    workers.clear()
