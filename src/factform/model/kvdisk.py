"""Encoded blocks on disk: one checked file each, shared by processes, the least recently used deleted first.

Knows nothing of models or prompts. Everything here can be made again: a file that is damaged, torn or gone is no entry,
a disk that is full keeps nothing, and no failure reaches whoever asks. Hence no fsync either.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from factform.model.kv import BlockKV
from factform.model.kvkey import text_of

BLOCKS = "blocks"
"""Folder of the files within that of the counts."""

SUFFIX, UNFINISHED, LEAVING = ".safetensors", ".new", ".leaving"

ABANDONED_S = 600.0
"""Age of an unfinished file that no process can still be writing."""

LOOKS = 32
"""A process counts the files anew whenever it wrote this share of the budget, so it passes it by no more than that."""


class DiskTier:
    """Encoded blocks in `folder`, up to `budget` bytes; with a budget of 0 what is there is deleted.

    File names are hashes (`BlockKey.name`) and files hold numbers only, yet numbers made of private text are private:
    `remove` takes away whatever was made of a text, by any model.
    """

    def __init__(self, folder: Path, budget: int):
        self.folder, self.budget = folder, budget
        self._written: float | None = None  # bytes since the files were last counted; None: never
        self._finish_leaving()
        if not budget:
            self.clear()

    def read(self, name: str) -> tuple[BlockKV | None, bool]:
        """The block called `name`, checked, or None; and whether there was a damaged file, which is then deleted."""
        path = self._path(name)
        try:
            data = path.read_bytes()
        except OSError:
            return None, False
        block = decode(name, data)
        with suppress(OSError):
            if block is None:
                path.unlink()
            else:
                os.utime(path)
        return block, block is None

    def touch(self, name: str) -> None:
        """Note that the block called `name` was used: what memory answers is in use as well."""
        with suppress(OSError):
            os.utime(self._path(name))

    def write(self, name: str, block: BlockKV) -> Path | None:
        """An unfinished file with `block`, to be given to `accept` or deleted; None where it cannot be kept."""
        data = encode(name, block)
        if len(data) > self.budget:
            return None
        path = self.folder / f"{name}.{secrets.token_hex(4)}{UNFINISHED}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError:
            with suppress(OSError):
                path.unlink()
            return None
        return path

    def accept(self, unfinished: Path, name: str) -> None:
        """Give an unfinished file its name: from now on it is found."""
        try:
            size = unfinished.stat().st_size
            unfinished.replace(self._path(name))
        except OSError:  # taken away by `remove` or `clear` of another process
            return
        self._written = None if self._written is None else self._written + size

    def make_room(self) -> None:
        """Delete the least recently used beyond the budget, and what a crash left unfinished."""
        if self._written is not None and self._written < self.budget / LOOKS:
            return
        self._written = 0
        files = sorted((status.st_mtime_ns, path, status.st_size) for path, status in self._files(SUFFIX))
        total = sum(size for _, _, size in files)
        for _, path, size in files:
            if total <= self.budget:
                break
            path.unlink(missing_ok=True)
            total -= size
        for path, status in self._files(UNFINISHED):
            if time.time() - status.st_mtime > ABANDONED_S:
                path.unlink(missing_ok=True)

    def remove(self, texts: Collection[str]) -> None:
        """Delete every file made of one of `texts` (their hashes), whatever model made it."""
        for path, _ in [*self._files(SUFFIX), *self._files(UNFINISHED)]:
            if text_of(path.name) in texts:
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete every file."""
        for path, _ in [*self._files(SUFFIX), *self._files(UNFINISHED)]:
            path.unlink(missing_ok=True)

    def size(self) -> dict[str, int]:
        """Number of files and their bytes."""
        sizes = [status.st_size for _, status in self._files(SUFFIX)]
        return {"entries": len(sizes), "bytes": sum(sizes)}

    # --- texts that are about to go -----------------------------------------------------------

    def note_leaving(self, texts: Collection[str], note: Path) -> None:
        """Add to `note`, a path of `new_note`, that `texts` may be about to go: should this process die before it calls
        `remove` and deletes the note, the next one to open the folder removes them."""
        if texts and self.folder.is_dir():
            with suppress(OSError), note.open("a", encoding="ascii") as file:
                file.write("".join(f"{text}\n" for text in texts))

    def new_note(self) -> Path:
        """A place for a note that no other process uses."""
        return self.folder / f"{secrets.token_hex(8)}{LEAVING}"

    def _finish_leaving(self) -> None:
        for path, _ in self._files(LEAVING):
            with suppress(OSError, UnicodeDecodeError):
                self.remove(set(path.read_text("ascii").split()))
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _files(self, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
        """Files by suffix; one that another process deletes meanwhile is left out."""
        try:
            listed = [entry for entry in os.scandir(self.folder) if entry.name.endswith(suffix)]
        except OSError:
            return
        for entry in listed:
            with suppress(OSError):
                yield Path(entry.path), entry.stat()


def encode(name: str, block: BlockKV) -> bytes:
    """`block` as a safetensors file that carries its own checksum."""
    tensors = {key: tensor.cpu().contiguous() for key, tensor in block.tensors().items()}
    return save(tensors, {"sha256": checksum(name, tensors)})


def decode(name: str, data: bytes) -> BlockKV | None:
    """The block in `data`, or None where they are not the bytes that `encode` made for `name`."""
    try:
        length = int.from_bytes(data[:8], "little")
        stated = json.loads(data[8 : 8 + length])["__metadata__"]["sha256"]
        tensors = load(data)
        return BlockKV(**tensors) if checksum(name, tensors) == stated else None
    except Exception:  # whatever a damaged file makes json, safetensors or torch raise
        return None


def checksum(name: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the block's name and each tensor's name, dtype, shape and bytes: all that `decode` makes use of."""
    digest = hashlib.sha256(name.encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(f"|{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
