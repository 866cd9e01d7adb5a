"""What a machine is found to compute fastest, what is kept of it, and what a busy one must not be taken for."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from factform.model import probe
from factform.model.probe import Choice, choose, decide, measure

QUIET = {
    "read float32, 1 threads": 2.0, "read float32, 2 threads": 1.0,
    "read bfloat16, 1 threads": 0.5, "read bfloat16, 2 threads": 0.25,
    "write float32, 1 threads": 1.0, "write float32, 2 threads": 0.5,
    "write bfloat16, 1 threads": 1.0, "write bfloat16, 2 threads": 0.5,
    "write int8, 1 threads": 0.3, "write int8, 2 threads": 0.15,
}  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path))
    return tmp_path / "machine"


def test_a_clear_gain_is_taken() -> None:
    choice = decide(QUIET, [1, 2], exact=True)
    assert (choice.threads, choice.dtype, choice.int8) == (2, "bfloat16", True)


@pytest.mark.parametrize(
    ("change", "chosen"),
    [
        ({"read float32, 2 threads": 1.9}, (1, "bfloat16", True)),  # within noise: the second core is taken
        ({"read float32, 2 threads": 40.0, "write float32, 2 threads": 30.0}, (1, "bfloat16", True)),
        ({"read bfloat16, 2 threads": 0.9}, (2, "float32", True)),
        ({"read bfloat16, 2 threads": 60.0}, (2, "float32", True)),  # emulated
        ({"write int8, 2 threads": 0.6}, (2, "bfloat16", False)),
    ],
)
def test_within_noise_the_safe_choice_is_made(change: dict[str, float], chosen: tuple[int, str, bool]) -> None:
    choice = decide({**QUIET, **change}, [1, 2], exact=True)
    assert (choice.threads, choice.dtype, choice.int8) == chosen


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({}, False),  # no library here
        ({"read native, 2 threads": 0.2, "write native, 2 threads": 0.1}, True),
        ({"read native, 2 threads": 0.3, "write native, 2 threads": 0.1}, True),  # bfloat16 reads a little faster
        ({"read native, 2 threads": 2.0, "write native, 2 threads": 0.1}, False),  # and here by far
        ({"read native, 2 threads": 0.2, "write native, 2 threads": 0.2}, False),  # torch writes faster
    ],
)
def test_the_native_library_is_used_where_an_answer_takes_less(times: dict[str, float], chosen: bool) -> None:
    assert decide({**QUIET, **times}, [1, 2], exact=True).native is chosen


def test_sums_that_are_not_exact_are_not_used() -> None:
    assert decide(QUIET, [1, 2], exact=False).int8 is False


def test_one_core_is_one_thread() -> None:
    alone = {name: ms for name, ms in QUIET.items() if "1 threads" in name}
    assert decide(alone, [1], exact=True).threads == 1


def test_a_kernel_that_cuts_sums_off_or_is_not_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = torch._int_mm
    assert probe.int8_is_exact()

    def saturating(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return kernel(x, y).clamp(-(2**15), 2**15)

    def missing(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not for this processor")

    for broken in (saturating, missing):
        monkeypatch.setattr(torch, "_int_mm", broken)
        assert not probe.int8_is_exact()


def test_this_machine_is_measured_quickly_and_left_as_it_was() -> None:
    threads, started = torch.get_num_threads(), time.thread_time()
    choice = measure()
    assert time.thread_time() - started < 3
    assert torch.get_num_threads() == threads
    assert 1 <= choice.threads <= probe.cores()
    assert all(ms > 0 for ms in choice.ms.values())


def test_a_choice_is_kept_and_can_be_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Choice(1, "float32", True, {"a": 1.0}), Choice(1, "bfloat16", False, {})]
    monkeypatch.setattr(probe, "measure", lambda: made.pop(0))
    first = choose()
    assert choose() == first
    assert len(list(cache.iterdir())) == 1
    assert choose(again=True).dtype == "bfloat16"
    assert choose().dtype == "bfloat16"
    assert not made


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"threads": 1}', '{"threads": 99999, "dtype": "float32"}'])
def test_a_damaged_file_is_measured_again(cache: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(probe, "measure", lambda: Choice(1, "float32", True, {}))
    choose()
    (file,) = cache.iterdir()
    file.write_text(damage)
    assert choose() == Choice(1, "float32", True, {})
    assert json.loads(file.read_text())["dtype"] == "float32"


def test_another_machine_has_a_choice_of_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "measure", lambda: Choice(1, "float32", True, {}))
    choose()
    monkeypatch.setattr(probe, "cores", lambda: 99)
    choose()
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(probe, "measure", lambda: Choice(1, "float32", False, {}))
    assert choose().threads == 1


def test_the_environment_has_the_last_word_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        probe.use_threads(2)
        assert torch.get_num_threads() == 1
        monkeypatch.delenv("OMP_NUM_THREADS")
        probe.use_threads(2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
