"""A look into an adapter's safetensors file without a tensor library: names, shapes, and that every value is finite.

Knows nothing of the registry or of models. Layout as the safetensors format has it: eight bytes of header length,
a JSON header with dtype, shape and byte range of each tensor, then the bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from factform.errors import RegistryError

_NAME = re.compile(r"layers\.(\d+)\.([a-z0-9_]+)\.([AB])")
_EXPONENTS = {"F32": (np.uint32, 0x7F800000), "F16": (np.uint16, 0x7C00), "BF16": (np.uint16, 0x7F80)}
"""Integer view and exponent bits by dtype: all exponent bits set means infinite or not a number."""


def check_tensors(path: Path, rank: int, targets: Sequence[str]) -> None:
    """That `path` holds `layers.{i}.{target}.A` [in, rank] and `.B` [rank, out] for every layer and target.

    Raises RegistryError for a missing pair, a wrong shape, a value that is not finite, or B matrices that are all
    zero (an adapter that changes nothing is a failed training, not an adapter).
    """
    data = _bytes(path)
    header, start = _header(path, data)
    layers = _layers(path, header, targets)
    live = False
    for name, entry in header.items():
        shape, side = entry["shape"], name[-1]
        if len(shape) != 2 or shape[1 if side == "A" else 0] != rank:
            wanted = f"[in, {rank}]" if side == "A" else f"[{rank}, out]"
            raise RegistryError(f"{path.name}: {name} has shape {shape}, should be {wanted}")
        values = _view(path, name, entry, memoryview(data)[start:])
        bits = _EXPONENTS[entry["dtype"]][1]
        if bool(((values & bits) == bits).any()):
            raise RegistryError(f"{path.name}: {name} holds values that are not finite; training diverged")
        live = live or (side == "B" and bool((values << 1).any()))  # << 1 drops the sign: -0.0 is zero as well
    if not live:
        raise RegistryError(f"{path.name}: every B matrix of its {layers} layers is zero; the adapter changes nothing")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error.strerror}") from None


def _header(path: Path, data: bytes) -> tuple[Mapping[str, Any], int]:
    length = int.from_bytes(data[:8], "little")
    try:
        if len(data) < 8 + length:
            raise ValueError(f"header of {length} bytes in a file of {len(data)}")
        header = json.loads(data[8 : 8 + length])
        return {name: entry for name, entry in header.items() if name != "__metadata__"}, 8 + length
    except (ValueError, AttributeError) as error:
        raise RegistryError(f"{path.name} is no safetensors file: {error}") from None


def _layers(path: Path, header: Mapping[str, Any], targets: Sequence[str]) -> int:
    strange = [name for name in header if not _NAME.fullmatch(name)]
    if strange:
        raise RegistryError(f"{path.name}: {strange[0]!r} is not named layers.<i>.<target>.A or .B")
    count = 1 + max((int(name.split(".")[1]) for name in header), default=-1)
    wanted = {f"layers.{i}.{target}.{side}" for i in range(count) for target in targets for side in "AB"}
    if not count or set(header) != wanted:
        different = sorted(wanted ^ set(header))
        detail = f"; first difference {different[0]}" if different else ""
        raise RegistryError(f"{path.name} must hold A and B of {', '.join(targets)} for every layer{detail}")
    return count


def _view(path: Path, name: str, entry: Mapping[str, Any], body: memoryview) -> np.ndarray:
    if entry["dtype"] not in _EXPONENTS:
        raise RegistryError(f"{path.name}: {name} is {entry['dtype']}, allowed are {', '.join(_EXPONENTS)}")
    kind = _EXPONENTS[entry["dtype"]][0]
    begin, end = entry["data_offsets"]
    if end > len(body) or (end - begin) != int(np.prod(entry["shape"])) * np.dtype(kind).itemsize:
        raise RegistryError(f"{path.name}: {name} does not fill its byte range; the file is cut off or damaged")
    return np.frombuffer(body[begin:end], dtype=kind)
