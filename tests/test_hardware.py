"""What the processor is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from factform.hardware import CPUINFO, has_fast_bf16


@pytest.mark.parametrize(
    ("flags", "fast"), [("avx512_bf16 amx_tile amx_bf16", True), ("avx512_bf16 amx_tile amx_int8", False), ("", False)]
)
def test_only_tiles_make_bf16_fast(tmp_path: Path, flags: str, fast: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse2\n")
    assert has_fast_bf16(file) is fast


def test_a_machine_without_the_list_has_none(tmp_path: Path) -> None:
    assert has_fast_bf16(tmp_path / "missing") is False


@pytest.mark.skipif(not CPUINFO.exists(), reason="not Linux")
def test_torch_sees_the_same() -> None:
    assert has_fast_bf16() == torch.cpu._is_amx_tile_supported()
