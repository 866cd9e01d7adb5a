"""The library that is compiled on this machine: for any processor, by several processes at once, or not at all."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from factform.hardware import processor
from factform.int8 import build
from factform.int8.build import Native, compiled, find_compiler, native
from factform.int8.encoder import EncoderLayer, PackedEncoder
from factform.int8.packed import Packed, pack
from factform.int8.quantize import quantize

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No library yet: an empty cache, and nothing remembered by this process before or after."""
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "native", build.native.__wrapped__)
    monkeypatch.setattr(build, "FLAGS", ("-O0", *(flag for flag in build.FLAGS if flag != "-O3")))
    return tmp_path / "machine"


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_without_a_compiler_the_reason_says_what_to_do(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fresh.parent))
    monkeypatch.delenv("CXX", raising=False)
    assert build.native().library is None
    assert "install one" in build.native().reason


def test_a_compiler_that_fails_is_quoted(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = script(fresh.parent / "broken", 'test "$1" = --version && exit 0; echo "no such header" >&2; exit 3')
    monkeypatch.setenv("CXX", str(broken))
    found = build.native()
    assert found == Native(None, f"{broken} made no usable library: no such header")
    assert [path.name for path in fresh.iterdir()] == []


def test_a_file_that_is_no_library_is_not_used(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    liar = script(
        fresh.parent / "liar", 'while [ $# -gt 1 ]; do shift; [ "$1" = -o ] && echo hello > "$2"; done; exit 0'
    )
    monkeypatch.setenv("CXX", str(liar))
    assert build.native().library is None
    assert "no usable library" in build.native().reason


@needs_compiler
def test_it_is_compiled_once_and_named_by_its_source(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = find_compiler()
    assert compiler is not None
    path = compiled(compiler, fresh)
    first = path.stat().st_mtime_ns
    assert compiled(compiler, fresh) == path
    assert path.stat().st_mtime_ns == first
    assert [p.name for p in fresh.iterdir()] == [path.name]
    other = fresh.parent / "other.cpp"
    other.write_text(build.SOURCE.read_text("utf-8") + "// changed\n", "utf-8")
    monkeypatch.setattr(build, "SOURCE", other)
    assert compiled(compiler, fresh) != path
    monkeypatch.undo()
    monkeypatch.setattr(build, "HERE", fresh.parent)
    (fresh.parent / "part.h").write_text("// another part\n", "utf-8")
    assert build._name(compiler) != path.stem.removeprefix("native-")


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners here")
@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_library_that_anyone_could_have_changed_is_not_loaded(fresh: Path, which: str) -> None:
    assert build.native().library is not None
    (library,) = fresh.iterdir()
    changed = library if which == "file" else fresh
    changed.chmod(changed.stat().st_mode | stat.S_IWOTH)
    assert build.native().library is None
    assert "folder of your own" in build.native().reason


@needs_compiler
def test_a_library_of_another_interface_is_refused(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fresh.parent / "old.cpp"
    source.write_text('#include <cstdint>\nextern "C" int32_t factform_version() { return 0; }\n', "utf-8")
    monkeypatch.setattr(build, "SOURCE", source)
    assert "has interface 0" in build.native().reason


@needs_compiler
@pytest.mark.slow
def test_processes_that_compile_at_once_all_get_it(tmp_path: Path) -> None:
    code = "from factform.int8.build import native; n = native(); print(n.path); assert n.library, n.reason"
    env = {**os.environ, "FACTFORM_CACHE": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    told = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert len(told) == 1
    assert len(list((tmp_path / "machine").iterdir())) == 1


@needs_compiler
@pytest.mark.skipif(native().library is None, reason=native().reason)
@pytest.mark.parametrize("units", ["none", "avx2"])
def test_a_processor_without_the_newest_units_computes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: str
) -> None:
    if units == "avx2" and "avx2" not in processor()["flags"].split():
        pytest.skip("a processor without AVX2")
    compiler = find_compiler()
    assert compiler is not None
    kept = tuple(f for f in build.FLAGS if not f.startswith("-march"))
    monkeypatch.setattr(build, "FLAGS", (*kept, "-march=x86-64-v3") if units == "avx2" else kept)
    plain = build._load(compiled(compiler, tmp_path))
    assert plain.factform_wide() == (units == "avx2")
    packed, x = pack(quantize(torch.randn(70, 50))), torch.randn(9, 50)
    out, matrix = torch.empty(9, 80), packed.struct()
    plain.factform_product(ctypes.byref(matrix), x.data_ptr(), 9, 2, out.data_ptr())
    assert torch.allclose(out[:, :70], packed.times(x), rtol=1e-6, atol=1e-6)  # without a fused multiply-add
    encoder, states, lengths = some_encoder(), torch.randn(300, 64), [270, 30]
    ours = encoder.read(states, lengths)
    monkeypatch.setattr("factform.int8.encoder.native", lambda: Native(plain, ""))
    assert float((encoder.read(states, lengths) - ours).norm() / ours.norm()) < 5e-3
    assert float((states - ours).norm() / ours.norm()) > 0.5


def some_encoder() -> PackedEncoder:
    """One layer with random weights and four heads of 16."""
    g = torch.Generator().manual_seed(0)

    def some(out: int, inner: int) -> Packed:
        return pack(quantize(torch.randn(out, inner, generator=g) * 0.2), torch.randn(out, generator=g))

    norms = [torch.rand(2, 64, generator=g) for _ in range(2)]
    layer = EncoderLayer(*norms, some(192, 64), some(64, 64), some(128, 64), some(64, 128))
    return PackedEncoder((layer,), 4, 1e-12, digits=2)
