"""Adapters on disk: content-addressed, immutable, verified when read; which one a behavior uses, with its history.

Knows nothing of tensors' meaning beyond their names and shapes, and nothing of training or serving.

    <root>/<digest>/adapter.safetensors, adapter.json     written once, never changed
    <root>/promoted/<behavior>.json                       replaced as a whole, so a reader sees the old or the new one
    <root>/verdicts/<digest>.jsonl                        what the gate said, appended
    <root>/.lock                                          held by whoever writes
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from factform.errors import RegistryError
from factform.form.adapterfile import check_tensors
from factform.ids import FolderState, canonical_json, folder_state, sha256_file, sha256_json
from factform.records import AdapterInfo, as_json

if TYPE_CHECKING:
    from factform.form.gate import Verdict  # scipy would double the time that listing adapters takes

TENSORS_FILE = "adapter.safetensors"
CONFIG_FILE = "adapter.json"
LOCK_SECONDS = 30.0

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_DATED = ("created", "times", "dated")
_OWN_KEYS = ("format", "behavior", "base", *_DATED)
_FIXED = ("rank", "alpha", "targets", "behavior_digest", "metrics", "tensors")


@dataclass(frozen=True)
class NewAdapter:
    """What is recorded about an adapter beside its tensors. `times` (seconds, dates) do not enter the digest."""

    behavior: str
    behavior_digest: str
    base: str
    lineage: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One line of a behavior's history. `reason` is given when the gate was overruled."""

    action: Literal["promote", "rollback"]
    digest: str
    at: str
    verdict: Mapping[str, Any] | None = None
    reason: str = ""


def add(root: Path, folder: Path, new: NewAdapter) -> AdapterInfo:
    """Register the adapter in `folder` (adapter.safetensors, and adapter.json with rank, alpha and targets).

    The same tensors with the same description are the same adapter: adding it again returns the one there is.
    Either all of it is in the registry afterwards or nothing. Raises RegistryError for tensors that do not fit.
    """
    config = _read_config(folder / CONFIG_FILE)
    described = _describe(folder / TENSORS_FILE, config, new)
    digest = sha256_json(described)
    with _locked(root):
        if not (root / digest).exists():
            created = datetime.now(UTC).isoformat(timespec="seconds")
            dates = {"created": created, "times": as_json(new.times)}
            _write_adapter(root, folder, {**described, **dates, "dated": sha256_json(dates)}, digest)
    return get(root, digest)


def get(root: Path, ref: str) -> AdapterInfo:
    """The adapter meant by `ref`: "behavior@digest12", a behavior's name (its promoted one) or a digest's beginning.

    Its files are hashed and held against its name, once as long as they stay as they are. Raises RegistryError for an
    unknown, ambiguous or damaged one.
    """
    digest = _resolve(root, ref)
    state = folder_state(root / digest)
    if state is None or state not in _VERIFIED:
        verify(root, digest)
    if state is not None:
        _VERIFIED.add(state)
    return _info(root, digest)


_VERIFIED: set[FolderState] = set()
"""States of adapter folders whose files were hashed by this process."""


def adapter_folder(root: Path, info: AdapterInfo) -> Path:
    """Where the adapter's files are. Read-only."""
    return root / info.digest


def list_adapters(root: Path, behavior: str | None = None) -> list[AdapterInfo]:
    """All adapters (of one behavior), oldest first. Files are not hashed."""
    digests = [p.name for p in root.iterdir() if _DIGEST.fullmatch(p.name)] if root.is_dir() else []
    infos = [_info(root, digest) for digest in digests]
    return sorted((i for i in infos if behavior in (None, i.behavior)), key=lambda i: (i.behavior, i.created, i.digest))


def verify(root: Path, digest: str) -> None:
    """Hash the files of one adapter. Raises RegistryError with the wanted and the found digest."""
    config = _read_config(root / digest / CONFIG_FILE)
    described = {k: v for k, v in config.items() if k not in _DATED}
    try:
        found = sha256_file(root / digest / TENSORS_FILE)
    except OSError as error:
        raise RegistryError(f"adapter {digest[:12]}: {TENSORS_FILE} cannot be read: {error.strerror}") from None
    if found != described.get("tensors"):
        what = f"should be {described.get('tensors')}, is {found}"
        raise RegistryError(f"adapter {digest[:12]}: {TENSORS_FILE} was changed: {what}; tune again or restore it")
    # Dates do not enter the digest: the same adapter may be tuned twice. Older ones have no checksum of them.
    if config.get("dated", "") not in ("", sha256_json({name: config.get(name) for name in _DATED[:2]})):
        raise RegistryError(f"adapter {digest[:12]}: the dates in {CONFIG_FILE} were changed; tune again or restore it")
    if (named := sha256_json(described)) != digest:
        what = f"should be {digest}, is {named}"
        raise RegistryError(f"adapter {digest[:12]}: {CONFIG_FILE} was changed: {what}; tune again or restore it")


def record_verdict(root: Path, digest: str, verdict: Verdict) -> None:
    """Keep what the gate said about an adapter, so that it can be promoted later."""
    with _locked(root):
        folder = _made(root / "verdicts")
        entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "verdict": as_json(verdict)}
        with (folder / f"{digest}.jsonl").open("ab") as file:
            file.write(f"\n{canonical_json(entry)}\n".encode())  # a new line first: the last one may be torn
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(folder)


def last_verdict(root: Path, digest: str) -> Mapping[str, Any] | None:
    """The gate's latest verdict on an adapter; None when it was never gated."""
    path = root / "verdicts" / f"{digest}.jsonl"
    if not path.is_file():
        return None
    for line in reversed(path.read_text(encoding="utf-8").split("\n")):
        with contextlib.suppress(json.JSONDecodeError):  # a line torn by a crash was never acknowledged
            if line:
                verdict: Mapping[str, Any] = json.loads(line)["verdict"]
                return verdict
    return None


def promote(
    root: Path, behavior: str, ref: str, verdict: Verdict | None = None, force: bool = False, reason: str = ""
) -> AdapterInfo:
    """Make an adapter the one its behavior uses. Promoting the promoted one changes nothing.

    Without `verdict` the gate's last one on this adapter counts. Raises RegistryError when the gate did not pass it,
    unless `force` is given with a `reason`, which is kept in the history.
    """
    info = get(root, ref)
    if info.behavior != behavior:
        raise RegistryError(f"adapter {info.name} belongs to behavior {info.behavior!r}, not to {behavior!r}")
    said = as_json(verdict) if verdict is not None else last_verdict(root, info.digest)
    if (not said or said.get("decision") != "promote") and not force:
        raise RegistryError(_not_passed(info, said))
    if force and not reason.strip():
        raise RegistryError(f"adapter {info.name}: overruling the gate needs a reason, which is kept in the history")
    with _locked(root):
        changes = history(root, behavior)
        if _stack(changes)[-1:] != [info.digest]:
            change = Change("promote", info.digest, _now(), said, reason.strip() if force else "")
            _write_pointer(root, behavior, [*changes, change])
    return _info(root, info.digest)


def rollback(root: Path, behavior: str) -> AdapterInfo:
    """Go back to the adapter that was promoted before the present one. It is verified first.

    Raises RegistryError when there is none before it.
    """
    with _locked(root):
        changes = history(root, behavior)
        stack = _stack(changes)
        if len(stack) < 2:
            present = f"{behavior}@{stack[0][:12]} is the first one" if stack else "none was ever promoted"
            raise RegistryError(f"behavior {behavior!r} has no adapter to roll back to: {present}")
        verify(root, stack[-2])
        _write_pointer(root, behavior, [*changes, Change("rollback", stack[-2], _now())])
    return _info(root, stack[-2])


def promoted(root: Path, behavior: str) -> str | None:
    """Digest of the adapter the behavior uses, None when it has none."""
    return next(reversed(_stack(history(root, behavior))), None)


def history(root: Path, behavior: str) -> list[Change]:
    """Every promotion and rollback of a behavior, oldest first."""
    _check_name(behavior)
    path = root / "promoted" / f"{behavior}.json"
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        changes = [Change(**change) for change in written["history"]]
        stack = _stack(changes)
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{path} is damaged ({error}); restore it from a backup or remove it") from None
    if written["promoted"] != stack[-1]:
        raise RegistryError(f"{path} is damaged: promoted is {written['promoted']}, its history says {stack[-1]}")
    return changes


def _stack(changes: Sequence[Change]) -> list[str]:
    """Promoted digests, the present one last: a promotion pushes, a rollback takes off."""
    stack: list[str] = []
    for change in changes:
        if change.action == "promote":
            stack.append(change.digest)
        else:
            stack.pop()
            if stack[-1:] != [change.digest]:
                raise ValueError(f"a rollback to {change.digest[:12]} does not follow from what was promoted")
    return stack


def _describe(tensors: Path, config: Mapping[str, Any], new: NewAdapter) -> dict[str, Any]:
    _check_name(new.behavior)
    if taken := sorted(set(new.lineage) & {*_OWN_KEYS, *_FIXED}):
        raise RegistryError(f"lineage must not use the names {', '.join(taken)}: the registry writes them itself")
    missing = [key for key in ("rank", "alpha", "targets") if key not in config]
    if missing:
        raise RegistryError(f"{CONFIG_FILE} of the new adapter lacks {', '.join(missing)}")
    check_tensors(tensors, int(config["rank"]), list(config["targets"]))
    described = {
        "format": 1,
        "behavior": new.behavior,
        "behavior_digest": new.behavior_digest,
        "base": new.base,
        "rank": config["rank"],
        "alpha": config["alpha"],
        "targets": config["targets"],
        "metrics": as_json(new.metrics),
        "lineage": as_json(new.lineage),
        "tensors": sha256_file(tensors),
    }
    try:
        return dict(json.loads(canonical_json(described)))  # what is hashed is what will be read back
    except (TypeError, ValueError) as error:
        raise RegistryError(f"the adapter's lineage or metrics are not plain JSON: {error}") from None


def _write_adapter(root: Path, folder: Path, config: Mapping[str, Any], digest: str) -> None:
    for old in root.glob(".new-*"):  # left by a crash: the lock is ours, so nobody is writing there
        shutil.rmtree(old, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        shutil.copyfile(folder / TENSORS_FILE, temporary / TENSORS_FILE)
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for file in temporary.iterdir():
            _sync_file(file)
            file.chmod(0o444)
        temporary.chmod(0o755)
        _sync_folder(temporary)
        temporary.rename(root / digest)
        _sync_folder(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RegistryError(f"the adapter cannot be written to {root}: {error}") from error


def _write_pointer(root: Path, behavior: str, changes: Sequence[Change]) -> None:
    folder = _made(root / "promoted")
    stack = _stack(changes)
    written = {"behavior": behavior, "promoted": stack[-1], "history": as_json(list(changes))}
    temporary = folder / f".{behavior}.new"
    temporary.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    _sync_file(temporary)
    temporary.replace(folder / f"{behavior}.json")
    _sync_folder(folder)


def _resolve(root: Path, ref: str) -> str:
    behavior, at, prefix = ref.partition("@")
    if not at and _NAME.fullmatch(ref) and (digest := promoted(root, ref)):
        return digest
    wanted = prefix if at else ref
    known = list_adapters(root)
    if re.fullmatch(r"[0-9a-f]{4,64}", wanted):
        found = [i for i in known if i.digest.startswith(wanted) and (not at or i.behavior == behavior)]
        if len(found) == 1:
            return found[0].digest
        if found:
            raise RegistryError(f"{ref!r} means {len(found)} adapters ({_names(found)}); give more digits")
    own = [i for i in known if i.behavior == behavior]
    if own and not at:
        raise RegistryError(f"behavior {ref!r} has no promoted adapter; there are {_names(own)}")
    raise RegistryError(f"no adapter {ref!r}; there are {_names(known) or 'none yet: tune a behavior first'}")


def _names(infos: Sequence[AdapterInfo]) -> str:
    return ", ".join(i.name for i in infos[:8]) + (f" and {len(infos) - 8} more" if len(infos) > 8 else "")


def _info(root: Path, digest: str) -> AdapterInfo:
    config = _read_config(root / digest / CONFIG_FILE)
    try:
        return AdapterInfo(
            digest=digest,
            behavior=config["behavior"],
            base=config["base"],
            created=config["created"],
            promoted=promoted(root, config["behavior"]) == digest,
            lineage={**config["lineage"], **{key: config[key] for key in _FIXED}},
        )
    except (KeyError, TypeError) as error:
        raise RegistryError(f"adapter {digest[:12]}: {CONFIG_FILE} is damaged ({error})") from None


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RegistryError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise RegistryError(f"{path} is damaged: not an object")
    return config


def _not_passed(info: AdapterInfo, said: Mapping[str, Any] | None) -> str:
    if not said:
        return f"adapter {info.name} was never gated; run the gate first, or promote by force with a reason"
    reasons = " ".join(said.get("reasons", ()))
    return f"the gate's verdict on {info.name} is {said.get('decision')!r}, not 'promote': {reasons}"


def _check_name(behavior: str) -> None:
    if not _NAME.fullmatch(behavior):
        raise RegistryError(f"{behavior!r} is no behavior name: lower-case letters, digits and hyphens")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the registry's write lock. The system lets go of it when a process dies, however it dies."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("ab") as file:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    message = f"another process has been writing to {root} for {LOCK_SECONDS:.0f} s; try again later"
                    raise RegistryError(message) from None
                time.sleep(0.01)
        yield


def _made(folder: Path) -> Path:
    if not folder.is_dir():
        folder.mkdir()
        _sync_folder(folder.parent)
    return folder


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
