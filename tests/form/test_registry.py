"""The registry: content-addressed, verified, promoted and rolled back whole, whatever happens in between."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from factform.errors import RegistryError
from factform.form import registry
from factform.form.gate import Verdict
from factform.form.registry import NewAdapter
from factform.model.lora import Adapter, load_adapter, new_adapter, save_adapter

SHAPES = dict.fromkeys(("q", "k", "v", "o", "gate", "up", "down"), (6, 4))
PASSED = Verdict("promote", ("better",), (), 0.02, 0.9, 20, 0)
FAILED = Verdict("reject", ("Field accuracy is not up.",), (), 0.02, 0.9, 20, 0)


def make(folder: Path, seed: int, dtype: torch.dtype = torch.float32) -> Path:
    """A small adapter as training leaves it: two layers, all targets, B not zero."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter: Adapter = new_adapter(SHAPES, 2, rank=3, alpha=6.0, seed=seed, device=torch.device("cpu"))
    torch.manual_seed(seed)
    for layer in adapter.layers:
        for pair in layer.values():
            pair.b.data.normal_()
            pair.a.data, pair.b.data = pair.a.data.to(dtype), pair.b.data.to(dtype)
    save_adapter(adapter, folder, {})
    return folder


def new(behavior: str = "figures", **changed: object) -> NewAdapter:
    whole = {"behavior": behavior, "behavior_digest": "b" * 64, "base": "m" * 64, "lineage": {"seed": 1}}
    return NewAdapter(**{**whole, **changed})  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


def two(root: Path, tmp_path: Path) -> tuple[str, str]:
    return tuple(registry.add(root, make(tmp_path / f"n{i}", i), new()).digest for i in (1, 2))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_added_is_found_and_loads(root: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    folder = make(tmp_path / "n", 1, dtype)
    info = registry.add(root, folder, new(metrics={"valid": 0.9}))
    assert info == registry.get(root, info.digest[:8]) == registry.get(root, info.name)
    assert info.lineage["rank"] == 3
    assert info.lineage["seed"] == 1
    assert info.lineage["metrics"] == {"valid": 0.9}
    loaded = load_adapter(registry.adapter_folder(root, info), 2)
    wanted = load_adapter(folder, 2)
    assert all(torch.equal(a, b) for a, b in zip(loaded.tensors().values(), wanted.tensors().values(), strict=True))


def test_the_digest_is_of_content_not_of_time(root: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "n", 1)
    first = registry.add(root, folder, new(times={"train_s": 1.5}))
    assert registry.add(root, folder, new(times={"train_s": 9.0})) == first
    assert len(registry.list_adapters(root)) == 1
    assert registry.add(root, folder, new(lineage={"seed": 2})).digest != first.digest
    assert registry.add(root, make(tmp_path / "o", 2), new()).digest != first.digest
    assert {p.name for p in root.iterdir() if p.name.startswith(".new")} == set()


def test_a_changed_file_is_found_with_both_digests(root: Path, tmp_path: Path) -> None:
    info = registry.add(root, make(tmp_path / "n", 1), new())
    path = registry.adapter_folder(root, info) / "adapter.safetensors"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(RegistryError, match=rf"should be {info.lineage['tensors']}, is [0-9a-f]{{64}}"):
        registry.get(root, info.digest)


def test_a_changed_description_is_found_with_both_digests(root: Path, tmp_path: Path) -> None:
    info = registry.add(root, make(tmp_path / "n", 1), new())
    path = registry.adapter_folder(root, info) / "adapter.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"alpha": 6.0', '"alpha": 60.0'))
    with pytest.raises(RegistryError, match=rf"adapter.json was changed: should be {info.digest}, is"):
        registry.get(root, info.digest)


def test_changed_dates_are_found_too(root: Path, tmp_path: Path) -> None:
    info = registry.add(root, make(tmp_path / "made", 1), new())
    path = root / info.digest / "adapter.json"
    path.chmod(0o644)
    text = path.read_text()
    path.write_text(text.replace(info.created, "1999" + info.created[4:]))
    with pytest.raises(RegistryError, match=r"the dates in adapter\.json were changed"):
        registry.verify(root, info.digest)
    path.write_text(text)
    registry.verify(root, info.digest)


def test_files_cannot_be_written_by_accident(root: Path, tmp_path: Path) -> None:
    info = registry.add(root, make(tmp_path / "n", 1), new())
    modes = [p.stat().st_mode & 0o222 for p in registry.adapter_folder(root, info).iterdir()]
    assert modes == [0, 0]


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(str(folder / "adapter.safetensors")))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", r"layers\.0\.q\.A holds values that are not finite"),
        ("zero", "every B matrix of its 2 layers is zero"),
        ("missing", r"first difference layers\.1\.v\.B"),
        ("shape", r"layers\.0\.q\.A has shape \[6, 2\], should be \[in, 3\]"),
        ("name", "'lora.q' is not named"),
        ("dtype", "is F64, allowed are"),
        ("cut", "cut off or damaged"),
        ("text", "no safetensors file"),
    ],
)
def test_tensors_that_cannot_be_an_adapter(root: Path, tmp_path: Path, fault: str, message: str) -> None:
    folder = make(tmp_path / "n", 1)
    tensors, path = _tensors(folder), folder / "adapter.safetensors"
    if fault == "nan":
        tensors["layers.0.q.A"][0, 0] = float("nan")
    elif fault == "zero":
        tensors = {k: torch.zeros_like(v) * -1 if k.endswith("B") else v for k, v in tensors.items()}
    elif fault == "missing":
        del tensors["layers.1.v.B"]
    elif fault == "shape":
        tensors["layers.0.q.A"] = tensors["layers.0.q.A"][:, :2].contiguous()
    elif fault == "name":
        tensors["lora.q"] = torch.ones(1)
    elif fault == "dtype":
        tensors = {k: v.double() for k, v in tensors.items()}
    save_file(tensors, str(path))
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif fault == "text":
        path.write_text("not tensors at all, but long enough")
    with pytest.raises(RegistryError, match=message):
        registry.add(root, folder, new())
    assert registry.list_adapters(root) == []


def test_lineage_that_is_no_json_or_hides_a_field(root: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "n", 1)
    with pytest.raises(RegistryError, match="not plain JSON"):
        registry.add(root, folder, new(lineage={"loss": float("nan")}))
    with pytest.raises(RegistryError, match="must not use the names rank"):
        registry.add(root, folder, new(lineage={"rank": 4}))


def test_references(root: Path, tmp_path: Path) -> None:
    a, b = two(root, tmp_path)
    with pytest.raises(RegistryError, match="'figures' has no promoted adapter; there are figures@"):
        registry.get(root, "figures")
    registry.promote(root, "figures", b, PASSED)
    assert registry.get(root, "figures").digest == b
    assert registry.get(root, f"figures@{a[:12]}").digest == a
    for unknown in ("f" * 12, f"other@{a[:12]}", "figures@", "nothing", "../x", ""):
        with pytest.raises(RegistryError, match="no adapter"):
            registry.get(root, unknown)


def test_an_ambiguous_beginning_is_refused(root: Path, tmp_path: Path) -> None:
    a, _ = two(root, tmp_path)
    twin = root / (a[:10] + "0" * 54)
    twin.mkdir()
    (twin / "adapter.json").write_text((root / a / "adapter.json").read_text())
    with pytest.raises(RegistryError, match="means 2 adapters"):
        registry.get(root, a[:10])


def test_promote_and_roll_back_like_a_stack(root: Path, tmp_path: Path) -> None:
    a, b = two(root, tmp_path)
    with pytest.raises(RegistryError, match="none was ever promoted"):
        registry.rollback(root, "figures")
    assert registry.promote(root, "figures", a, PASSED).promoted
    registry.promote(root, "figures", b, PASSED)
    registry.promote(root, "figures", b, PASSED)  # again: nothing to do, nothing to roll back to twice
    assert [i.promoted for i in registry.list_adapters(root) if i.digest == a] == [False]
    assert registry.rollback(root, "figures").digest == a
    assert registry.get(root, "figures").promoted
    with pytest.raises(RegistryError, match="is the first one"):
        registry.rollback(root, "figures")
    registry.promote(root, "figures", b, PASSED)
    assert [c.action for c in registry.history(root, "figures")] == ["promote", "promote", "rollback", "promote"]


def test_the_gate_must_have_passed(root: Path, tmp_path: Path) -> None:
    a, b = two(root, tmp_path)
    with pytest.raises(RegistryError, match="was never gated"):
        registry.promote(root, "figures", a)
    with pytest.raises(RegistryError, match=r"verdict on figures@.* is 'reject'.*Field accuracy is not up"):
        registry.promote(root, "figures", a, FAILED)
    with pytest.raises(RegistryError, match="needs a reason"):
        registry.promote(root, "figures", a, FAILED, force=True)
    registry.promote(root, "figures", a, FAILED, force=True, reason="trial at one desk")
    (change,) = registry.history(root, "figures")
    assert (change.reason, change.verdict and change.verdict["decision"]) == ("trial at one desk", "reject")
    registry.record_verdict(root, b, FAILED)
    registry.record_verdict(root, b, PASSED)
    assert registry.promote(root, "figures", b).digest == b  # the last verdict counts
    with pytest.raises(RegistryError, match="belongs to behavior 'figures', not to 'other'"):
        registry.promote(root, "other", b, PASSED)


def test_a_damaged_adapter_is_not_rolled_back_to(root: Path, tmp_path: Path) -> None:
    a, b = two(root, tmp_path)
    registry.promote(root, "figures", a, PASSED)
    registry.promote(root, "figures", b, PASSED)
    path = root / a / "adapter.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(RegistryError, match="was changed"):
        registry.rollback(root, "figures")
    assert registry.promoted(root, "figures") == b


def test_a_torn_verdict_line_is_passed_over(root: Path, tmp_path: Path) -> None:
    a, _ = two(root, tmp_path)
    registry.record_verdict(root, a, PASSED)
    with (root / "verdicts" / f"{a}.jsonl").open("a") as file:
        file.write('{"at": "20')
    assert (registry.last_verdict(root, a) or {})["decision"] == "promote"
    registry.record_verdict(root, a, FAILED)
    assert (registry.last_verdict(root, a) or {})["decision"] == "reject"


def test_leftovers_of_a_crash_are_swept(root: Path, tmp_path: Path) -> None:
    (root / ".new-dead").mkdir(parents=True)
    registry.add(root, make(tmp_path / "n", 1), new())
    assert not (root / ".new-dead").exists()


def test_concurrent_changes_lose_nothing(root: Path, tmp_path: Path) -> None:
    a, b = two(root, tmp_path)

    def alternate() -> None:
        for digest in (a, b) * 5:
            registry.promote(root, "figures", digest, PASSED)

    threads = [threading.Thread(target=alternate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changes = registry.history(root, "figures")
    assert all(x.digest != y.digest for x, y in itertools.pairwise(changes))
    assert registry.promoted(root, "figures") == changes[-1].digest


_LOOP = """
import sys
from pathlib import Path
from factform.form import registry
from factform.form.gate import Verdict
root, a, b = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
passed = Verdict("promote", (), (), 0.02, 0.9, 20, 0)
print("ready", flush=True)
while True:
    registry.promote(root, "figures", b, passed)
    registry.rollback(root, "figures")
"""


@pytest.mark.slow
def test_the_pointer_survives_kill_9(root: Path, tmp_path: Path) -> None:
    """At whatever moment the writer dies, a reader finds one of the two states, and the next writer goes on."""
    a, b = two(root, tmp_path)
    registry.promote(root, "figures", a, PASSED)
    rng = random.Random(7)
    seen: set[str | None] = set()
    for _ in range(12):
        command = [sys.executable, "-c", _LOOP, str(root), a, b]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            until = time.monotonic() + rng.uniform(0.01, 0.15)
            while time.monotonic() < until:
                seen.add(registry.promoted(root, "figures"))  # a reader beside the writer
            os.kill(process.pid, signal.SIGKILL)
        before = registry.history(root, "figures")
        written = json.loads((root / "promoted" / "figures.json").read_text())
        assert written["promoted"] in (a, b)
        assert len(written["history"]) == len(before)
        seen.add(written["promoted"])
        if written["promoted"] == b:
            assert registry.rollback(root, "figures").digest == a
        assert registry.get(root, "figures").digest == a
    assert seen == {a, b}
    assert len(registry.history(root, "figures")) > 12


def test_an_adapter_is_hashed_again_only_when_a_file_of_it_changed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = registry.add(root, make(tmp_path / "n", 1), new())
    folder = registry.adapter_folder(root, info)
    hashed: list[str] = []
    verify = registry.verify
    monkeypatch.setattr(registry, "verify", lambda root, digest: (hashed.append(digest), verify(root, digest)))
    registry.get(root, info.digest)
    registry.get(root, info.digest)
    assert len(hashed) == 2  # just written: the clock of files is too coarse to be trusted
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    for _ in range(3):
        registry.get(root, info.digest)
    assert len(hashed) == 3
    path = folder / "adapter.safetensors"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, (1e9 + 1, 1e9 + 1))
    with pytest.raises(RegistryError, match="was changed"):
        registry.get(root, info.digest)
