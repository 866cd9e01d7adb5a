"""What this machine's processor computes fast.

Knows nothing of models or tensors, so that asking costs no import of torch.
"""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def has_fast_bf16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether bfloat16 beats float32 on this CPU: only with AMX tiles, which Linux lists in `cpuinfo`.

    AVX512-BF16 alone is no gain: its dot-product units do fewer per cycle than two fp32 FMAs, measured 480 against
    720 tokens/s of prefill on 2 cores (docs/log.md).
    """
    try:
        return "amx_bf16" in cpuinfo.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False  # not Linux


def processor() -> dict[str, str]:
    """The processor's name and, on Linux, its instruction sets: what compiled code and measured times hold for."""
    return {"processor": _cpu("model name") or platform.processor(), "flags": _cpu("flags")}


def _cpu(field: str) -> str:
    try:
        lines = CPUINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""  # not Linux
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == field), "")
