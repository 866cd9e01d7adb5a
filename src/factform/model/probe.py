"""What this machine computes fastest: a few products are timed once, and what they say is kept for the next start.

Knows nothing of models. Times are the least of several, taken in turn, and a choice that changes more than speed, or
may collapse on a busy machine, must win clearly. Kept as one JSON file a machine (processor, its flags, the cores this
process may use, torch) in the folder for caches; a file that cannot be read is made anew.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from factform import compute
from factform.caches import cache_dir
from factform.hardware import processor
from factform.ids import sha256_json
from factform.int8.build import native
from factform.int8.packed import pack
from factform.int8.quantize import STEPS, int8_product, quantize

VERSION = 3
"""Raise it when other products are timed or another rule chooses."""

ROUNDS = 12
SIZE, INNER = 768, 2048
READ_ROWS = 64
ANSWER = (128, 32)
"""Tokens read and tokens chosen for an answer over kept passages."""

CLEARLY = 0.75
"""Share of the safe choice's time that the other may take at most: for two threads instead of one, which collapse when
a core is taken, and for bfloat16 instead of float32, which rounds more."""

Times = dict[str, float]


@dataclass(frozen=True)
class Choice:
    """Threads, the dtype passages are read in, and whether writing in 8 bit is faster. `ms` are the times behind it.

    `native`: reading and writing in 8 bit by the native library is faster than either.
    """

    threads: int
    dtype: str
    int8: bool
    ms: Mapping[str, float]
    native: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


def choose(*, again: bool = False) -> Choice:
    """This machine's choice: the one kept from an earlier start or, if there is none or `again`, newly measured."""
    path = cache_dir() / "machine" / f"{sha256_json(machine_facts())[:16]}.json"
    kept = None if again else _read(path)
    return kept or _keep(path, compute.run(measure))


def machine_facts() -> dict[str, object]:
    """What a choice depends on."""
    return {
        "version": VERSION,
        **processor(),
        "cores": cores(),
        "torch": torch.__version__,
        "cuda": torch.cuda.is_available(),
    }


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure() -> Choice:
    """Time the products, some tenths of a second in all, and choose. Torch's number of threads is as before."""
    if torch.cuda.is_available():
        return Choice(torch.get_num_threads(), "bfloat16", False, {})
    counts = sorted({1, cores()})
    times: Times = {}
    for _ in range(2):  # in turn, so that what else the machine does meets all alike
        for threads in counts:
            with _threads(threads):
                for name, product in _products().items():
                    key = f"{name}, {threads} threads"
                    times[key] = min(times.get(key, float("inf")), _least_ms(product))
    return decide(times, counts, exact=int8_is_exact())


def decide(times: Mapping[str, float], counts: list[int], *, exact: bool) -> Choice:
    """The choice these times speak for. `exact` says whether the processor's 8-bit sums are right."""

    def ms(name: str, threads: int) -> float:
        return times[f"{name}, {threads} threads"]

    def total(threads: int) -> float:
        return ms("read float32", threads) + ms("write float32", threads)

    most = counts[-1]
    threads = most if total(most) < CLEARLY * total(1) else 1
    bf16 = ms("read bfloat16", threads) < CLEARLY * ms("read float32", threads)
    dtype = "bfloat16" if bf16 else "float32"
    int8 = exact and ms("write int8", threads) < ms(f"write {dtype}", threads)
    native = f"read native, {threads} threads" in times and (
        ANSWER[0] / READ_ROWS * ms("read native", threads) + ANSWER[1] * ms("write native", threads)
        < ANSWER[0] / READ_ROWS * ms(f"read {dtype}", threads)
        + ANSWER[1] * ms("write int8" if int8 else f"write {dtype}", threads)
    )
    return Choice(threads, dtype, int8, {name: round(value, 4) for name, value in times.items()}, native)


def int8_is_exact() -> bool:
    """Whether products of whole numbers come out exact: on processors without such units sums may be cut off."""
    x = torch.full((2, SIZE), STEPS, dtype=torch.int8)
    x[1, ::2] = -STEPS
    matrix = torch.full((16, SIZE), -STEPS, dtype=torch.int8)
    matrix[::2, ::3] = STEPS
    try:
        return torch.equal(torch._int_mm(x, matrix.t()).long(), x.long() @ matrix.long().t())
    except RuntimeError:
        return False


def use_threads(threads: int) -> None:
    """Let torch compute with so many threads, in the whole process.

    Does nothing where OMP_NUM_THREADS is set: who starts the process knows what else runs beside it.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        set_threads(threads)


def set_threads(threads: int) -> None:
    """Let torch compute with so many threads, here and in the process's thread for computing: each has its number."""
    torch.set_num_threads(threads)
    compute.run(lambda: torch.set_num_threads(threads))


def _products() -> dict[str, Callable[[], object]]:
    """Reading is a product of many rows, writing one of a single row."""
    matrix = torch.randn(INNER, SIZE)
    rows, row, small, half = torch.randn(READ_ROWS, SIZE), torch.randn(1, SIZE), quantize(matrix), matrix.bfloat16()
    half_rows, half_row = rows.bfloat16(), row.bfloat16()
    products: dict[str, Callable[[], object]] = {
        "read float32": lambda: F.linear(rows, matrix),
        "read bfloat16": lambda: F.linear(half_rows, half),
        "write float32": lambda: F.linear(row, matrix),
        "write bfloat16": lambda: F.linear(half_row, half),
        "write int8": lambda: int8_product(row, small),
    }
    if native().library is not None:
        packed = pack(small)
        products |= {"read native": lambda: packed.times(rows), "write native": lambda: packed.times(row)}
    return products


def _least_ms(product: Callable[[], object]) -> float:
    """The least time of some runs; few where one alone takes long, as an emulated dtype does."""
    product()
    least, until = float("inf"), time.perf_counter() + 0.03
    for _ in range(ROUNDS):
        started = time.perf_counter()
        product()
        now = time.perf_counter()
        least = min(least, now - started)
        if now > until:
            break
    return least * 1e3


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def _read(path: Path) -> Choice | None:
    try:
        raw = json.loads(path.read_text("utf-8"))
        kept = Choice(
            int(raw["threads"]), str(raw["dtype"]), raw["int8"] is True, dict(raw["ms"]), raw["native"] is True
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return kept if 1 <= kept.threads <= cores() and kept.dtype in ("float32", "bfloat16") else None


def _keep(path: Path, choice: Choice) -> Choice:
    """Write `choice`, whole or not at all; a folder that cannot be written costs the next start a measurement."""
    own = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(json.dumps(asdict(choice), indent=2) + "\n", "utf-8")
        own.replace(path)
    except OSError:
        pass
    return choice
