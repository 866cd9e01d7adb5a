"""The native part of the forward pass, compiled once a machine by the C++ compiler that is there.

Knows nothing of models. The library is kept beside what the start-up probe found, named by its source, the compiler,
its flags and the processor, so that none made for another machine or of another source is ever loaded. Without a
compiler, or where compiling fails, everything is computed by torch.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from factform.caches import cache_dir
from factform.hardware import processor
from factform.ids import sha256_json

HERE = Path(__file__).parent
SOURCE = HERE / "kernels.cpp"
INTERFACE = 7
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fno-math-errno", "-w")
COMPILERS = ("c++", "g++", "clang++")
SECONDS = 300.0
"""A compiler that needs longer is taken for stuck; two to ten are usual."""


@dataclass(frozen=True)
class Native:
    """The library, or why there is none."""

    library: ctypes.CDLL | None
    reason: str
    path: Path | None = None


@cache
def native() -> Native:
    """This process's native library; compiled now if this machine has none yet. Never raises."""
    compiler = find_compiler()
    if compiler is None:
        return Native(None, "no C++ compiler (c++, g++ or clang++): install one to have answers written faster")
    try:
        path = compiled(compiler, cache_dir() / "machine")
        return Native(_load(path), "", path)
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return Native(None, f"{compiler} made no usable library: {_told(error)}")


def find_compiler() -> str | None:
    """The compiler the user names in CXX, or the first of the usual ones."""
    names = (os.environ.get("CXX", ""), *COMPILERS)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def compiled(compiler: str, folder: Path) -> Path:
    """The library in `folder`, made by `compiler` if it is not there. Raises OSError or SubprocessError.

    It is written beside its place and renamed: two processes that compile at once both succeed.
    """
    path = folder / f"native-{_name(compiler)}.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as room:
        built = Path(room) / "native.so"
        try:
            _compile(compiler, Path(room), built, ("-fopenmp",))
        except subprocess.CalledProcessError:  # a compiler without OpenMP, as on macOS
            _compile(compiler, Path(room), built, ())
        built.replace(path)
    return path


def _compile(compiler: str, room: Path, built: Path, threads: Sequence[str]) -> None:
    """Compile and link. Where torch brings the OpenMP library, it is not linked to another: threads of two such
    libraries would wait for the same cores."""
    part = room / "native.o"
    _run([compiler, *FLAGS, *threads, "-I", str(HERE), "-c", str(SOURCE), "-o", str(part)])
    own = [] if not threads or torchs_openmp() else [*threads]
    _run([compiler, "-shared", str(part), "-o", str(built), *own])


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)


def _told(error: Exception) -> str:
    """The last line a failed compiler wrote, or the error."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    lines = said.decode(errors="replace").strip().splitlines() if said else []
    return lines[-1] if lines else str(error)


def _name(compiler: str) -> str:
    """What a library depends on, in 16 digits."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=SECONDS).stdout
    facts = {
        "source": [path.read_text("utf-8") for path in (SOURCE, *sorted(HERE.glob("*.h")))],
        "compiler": version.decode(errors="replace"),
        "flags": FLAGS,
        **processor(),
        "torch": torch.__version__,
    }
    return sha256_json(facts)[:16]


def torchs_openmp() -> Path | None:
    """The OpenMP library that torch brings and has loaded; None where it uses the system's or another kind."""
    if not sys.platform.startswith("linux"):
        return None
    package = Path(torch.__file__).parent
    found = [*package.glob("lib/libgomp*.so*"), *package.parent.glob("torch.libs/libgomp*.so*")]
    return found[0] if found else None


def _check_owner(path: Path) -> None:
    """Raise OSError where others may have put or changed the library: what is loaded runs as this user."""
    if not hasattr(os, "getuid"):
        return
    for place in (path, path.parent):
        about = place.stat()
        if about.st_uid not in (os.getuid(), 0) or about.st_mode & stat.S_IWOTH:
            raise PermissionError(
                f"{place} is another user's or open to everyone: set FACTFORM_CACHE to a folder of your own"
            )


def _load(path: Path) -> ctypes.CDLL:
    """The library at `path` with its functions declared. Raises OSError or AttributeError."""
    _check_owner(path)
    openmp = torchs_openmp()
    if openmp:
        ctypes.CDLL(str(openmp), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path))
    library.factform_version.restype = ctypes.c_int32
    if library.factform_version() != INTERFACE:
        raise OSError(f"{path} has interface {library.factform_version()}, not {INTERFACE}")
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    library.factform_read.argtypes = [pointer, pointer, pointer, pointer, pointer, number, number, pointer]
    library.factform_read.restype = None
    wide = ctypes.c_int64
    library.factform_place.argtypes = [pointer, pointer, pointer, pointer, pointer, wide, wide, number]
    library.factform_place.restype = None
    library.factform_encode.argtypes = [pointer, pointer, pointer, number, number]
    library.factform_encode.restype = None
    library.factform_leaders.argtypes = [
        pointer, wide, number, number, pointer, pointer, number, pointer, pointer, number,
    ]  # fmt: skip
    library.factform_leaders.restype = None
    library.factform_product.argtypes = [pointer, pointer, number, number, pointer]
    library.factform_product.restype = None
    library.factform_scan.argtypes = [pointer, pointer, pointer, wide, number, pointer]
    library.factform_scan.restype = None
    library.factform_word.argtypes = [pointer, pointer, wide, pointer, ctypes.c_double, pointer]
    library.factform_word.restype = None
    return library
