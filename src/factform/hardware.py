"""What this machine's processor computes fast.

Knows nothing of models or tensors, so that asking costs no import of torch.
"""

from __future__ import annotations

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
