"""How searching behaves as a store grows: latency, recall, memory, disk; how fast one document is found and gone.

Knows nothing of peers. Everything goes through `DataLayer`. The text is generated (words by Zipf's law, 120 a chunk),
and so are the stored vectors: of each text a unit vector drawn by its hash, and TOKENS token vectors, so that 100,000
chunks are there in minutes. Questions and the documents saved one by one use the real default embedder, at its cost.

    python benchmarks/search_scale.py                 # 1k, 10k and 100k chunks, 2,000 updates: some 15 minutes
    python benchmarks/search_scale.py --full          # 10,000 updates
    python benchmarks/search_scale.py --million       # also 1M
    python benchmarks/search_scale.py --parts stream  # only some of: sizes fresh stream

Interrupted, the same command goes on: stores stay in the cache, and parts that the report holds of the same commit are
not measured again (`--again` does).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from factform.facts.disk import bytes_below
from factform.facts.embed import Embedder, Vectors
from factform.facts.store import DataLayer
from factform.facts.tokenbits import PRODUCT, width
from factform.facts.tokens import key_of
from factform.facts.visible import EVERYTHING
from factform.ids import sha256_json
from factform.model.fetch import fetch_model
from factform.records import Source
from factform.settings import ModelSettings

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "search_scale.json"
SIZES = (1_000, 10_000, 100_000)
CHUNKS = 20
"""Chunks of a generated document."""
WORDS = 120
TOKENS = 160
"""Token vectors of a generated chunk: those of 120 words in running text."""
VOCABULARY = 60_000
PAGE_WORDS = 400
UPDATES = 2_000
FULL_UPDATES = 10_000
POLL_S = 0.005
LOOKS = 250
"""Updates between two looks at how long searches take."""


class Generated:
    """The real embedder for questions; for passages vectors drawn by hash, or real ones while `real` is set."""

    def __init__(self, embedder: Embedder):
        self._embedder = embedder
        self.real = False
        self.dim = embedder.dim
        self.identity: Mapping[str, Any] = {**embedder.identity, "passages": "drawn by hash"}
        self.digest = sha256_json(dict(self.identity))

    def encode(self, texts: Sequence[str]) -> Vectors:
        if self.real or not texts:
            return self._embedder.encode(texts)
        drawn = np.stack([_draw(text).standard_normal(self.dim, np.float32) for text in texts])
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        """Computed, unlike those that come when a passage is taken in: what a search costs that has to."""
        return self._embedder.encode_tokens(texts)

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
        if self.real:
            return self._embedder.encode_both(texts)
        return self.encode(texts), [_draw(text).random((TOKENS, self.dim), np.float32) - 0.5 for text in texts]

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]:
        return self._embedder.encode_query(text)

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text) if self.real else len(text.split())


def _draw(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))


def words_of(pick: random.Random, count: int) -> list[str]:
    """Words whose frequency falls with their number, as in any language."""
    return [f"w{int(VOCABULARY ** pick.random()):x}{'aeiou'[pick.randrange(5)]}" for _ in range(count)]


def prose() -> list[str]:
    """The words of the project's own pages: generated ones are several tokens each, which no page is."""
    return [word for page in sorted((ROOT / "docs").rglob("*.md")) for word in page.read_text("utf-8").split()]


def page(number: int, words: Sequence[str]) -> str:
    """A page of 400 words in running text."""
    at = random.Random(f"page {number}").randrange(len(words) - PAGE_WORDS)
    return " ".join(words[at : at + PAGE_WORDS])


def document(number: int, turn: int = 0, chunks: int = CHUNKS) -> Source:
    pick = random.Random(f"{number} {turn}")
    text = "\n\n".join(" ".join(words_of(pick, WORDS)) for _ in range(chunks))
    return Source(f"d{number:07d}", text.encode(), f"d{number:07d}.txt")


def questions(count: int) -> list[str]:
    pick = random.Random(7)
    return [" ".join(["what", "is", *words_of(pick, pick.randint(4, 8))]) for _ in range(count)]


def opened(folder: Path, *, real: bool = False, keep_tokens: bool = True) -> DataLayer:
    encoder = Generated(Embedder.open(fetch_model(ModelSettings().embedder).folder))
    encoder.real = real
    return DataLayer.open(folder, encoder, chunk_tokens=WORDS + 20, keep_tokens=keep_tokens)


def build(folder: Path, chunks: int) -> None:
    with opened(folder) as layer:
        have = {item.document for item in layer.documents()}
        wanted = [number for number in range(chunks // CHUNKS) if f"d{number:07d}" not in have]
        for start in range(0, len(wanted), 640):
            layer.add(document(number) for number in wanted[start : start + 640])
            print(
                f"  {folder.name}: {chunks // CHUNKS - len(wanted) + start} of {chunks // CHUNKS} documents", flush=True
            )
        _with_tokens(layer, chunks)


def _with_tokens(layer: DataLayer, chunks: int) -> None:
    """Token vectors for every chunk of a store that was made without."""
    tokens = layer._tokens
    assert tokens is not None
    assert tokens._file is not None
    if tokens._file.count() >= chunks:
        return
    rng, done = np.random.default_rng(0), 0
    for rows, _ in layer._current.get().batches():
        drawn = rng.integers(0, 256, (len(rows), TOKENS, width(layer._encoder.dim)), np.uint8)
        drawn[:, :, -2:] = np.array([17.3], PRODUCT).view(np.uint8)  # the mean product of 384 numbers
        tokens._save((row.chunk, key_of(row.chunk), each) for row, each in zip(rows, drawn, strict=True))
        done += len(rows)
        print(f"  token vectors of {done} of {chunks} chunks", flush=True)


def size(folder: Path) -> dict[str, Any]:
    """Everything told of one size, in a process of its own."""
    bare = rss()
    began = time.perf_counter()
    with opened(folder) as layer:
        ready = time.perf_counter()
        layer.search("first")
        first = time.perf_counter()
        asked = questions(220)
        for question in asked[:20]:
            layer.search(question, rerank=False)
        plain = [layer.search(question, rerank=False).ms for question in asked[20:]]
        memory = rss()
        twice = [(layer.search(question).ms, layer.search(question).ms) for question in asked[20:70]]
        new, again = zip(*twice, strict=True)  # the candidates' token vectors from the file, then in memory
        status = layer.status()
        index = layer._current.get()
        return {
            "chunks": status["chunks"],
            "documents": status["documents"],
            "open_ms": 1000 * (ready - began),
            "first_search_ms": 1000 * (first - ready),
            "hybrid_ms": told([item["total"] for item in plain]),
            "of_that_embedding_the_question_ms": told([item["embed"] for item in plain]),
            "reranked_ms": told([item["total"] for item in new]),
            "reranked_in_memory_ms": told([item["total"] for item in again]),
            "reranked_computed_ms": told(_computed(folder, asked[70:90])),
            "recall_at_50": recall(layer, asked[20:40]),
            "rss_mb": {"before_opening": bare, "after_searching": memory},
            "disk_mb": {
                "table": disk(index.path),
                "words": disk(index.folder / f"{index.name}.words"),
                "token_vectors": disk(folder / "cache" / "tokens"),
                "originals_and_texts": disk(folder / "blobs"),
                "ledger": (folder / "ledger.db").stat().st_size / 1e6,
            },
        }


def _computed(folder: Path, asked: Sequence[str]) -> list[float]:
    """Milliseconds of reranked searches where nothing is kept of the candidates."""
    with opened(folder, keep_tokens=False) as layer:
        layer.search("first")
        return [layer.search(question).ms["total"] for question in asked]


def recall(layer: DataLayer, asked: Sequence[str]) -> float:
    """Share of the 50 rows nearest by exact comparison that are among the candidates."""
    index = layer._current.get()
    read = index._table.search().select(["id", "vector"]).to_arrow()
    vectors = read["vector"].combine_chunks().flatten().to_numpy().reshape(-1, index.dim)
    ids = np.array(read["id"].to_pylist())
    shares = []
    for question in asked:
        vector, _ = layer._encoder.encode_query(question)
        exact = set(ids[np.argsort(-(vectors @ vector), kind="stable")[:50]].tolist())
        found = {item.row.chunk.id for item in index.candidates(question, vector, n=50, visible=EVERYTHING)[0]}
        shares.append(len(exact & found) / 50)
    return float(np.mean(shares))


def fresh(folder: Path, count: int) -> dict[str, Any]:
    """Save and remove one-page documents with the real embedder; another process looks until it sees it."""
    command = [sys.executable, __file__, "--cache", str(folder.parent), "--watch", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdin is not None
        assert watcher.stdout is not None

        def seen(word: str, there: bool) -> float:
            assert watcher.stdout is not None
            return float(watcher.stdout.readline())

        watcher.stdout.readline()
        saved, gone, told_ms, removed, words = [], [], [], [], prose()
        with opened(folder, real=True) as layer:
            layer.search("warm up")
            for number in range(-2, count):
                body = f"page{number + 10:05d}x {page(number, words)}"
                name = f"page{number + 10:05d}x"
                watcher.stdin.write(f"{name} 1\n")
                watcher.stdin.flush()
                began = time.monotonic()
                (receipt,) = layer.add([Source(name, body.encode(), f"{name}.txt")])
                found = seen(name, True) - began
                watcher.stdin.write(f"{name} 0\n")
                watcher.stdin.flush()
                began = time.monotonic()
                layer.remove([name])
                back = time.monotonic() - began
                lost = seen(name, False) - began
                if number >= 0:
                    saved.append(1000 * found)
                    gone.append(1000 * lost)
                    removed.append(1000 * back)
                    told_ms.append(receipt.visible_ms or 0.0)
        watcher.stdin.close()
    return {
        "saved_to_seen_by_another_process_ms": told(saved),
        "visible_ms_in_receipts": told(told_ms),
        "removed_to_gone_for_another_process_ms": told(gone),
        "remove_returned_ms": told(removed),
    }


def watch(folder: Path) -> None:
    """Look every POLL_S, and as long as a search takes, for the document named on each line; tell when it is as asked.
    (Without a pause it would have one of two cores, and what is measured would be that.)"""
    with opened(folder) as layer:
        layer.search("warm up")
        print("ready", flush=True)
        for line in sys.stdin:
            name, wanted = line.split()
            while True:
                hits = layer.search(f'"{name}"', k=1, rerank=False).hits
                if bool(hits) == (wanted == "1"):
                    print(time.monotonic(), flush=True)
                    break
                time.sleep(POLL_S)


def stream(folder: Path, updates: int) -> dict[str, Any]:
    """One-chunk documents updated one by one; how long that and searches take, over time. On a copy of the store."""
    copy = folder.with_name(f"{folder.name}-stream")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    print(f"  stream: {updates} updates on a copy", flush=True)
    asked = questions(40)
    looks, each = [], []
    with opened(copy) as layer:
        layer.add(document(9_000_000 + i, chunks=1) for i in range(500))
        for question in asked:
            layer.search(question, rerank=False)
        for turn in range(updates + 1):
            if turn % LOOKS == 0:
                took = [layer.search(question, rerank=False).ms["total"] for question in asked]
                updating = told(each[-LOOKS:]) if each else None
                files = layer._current.get()._table.stats()["fragment_stats"]["num_fragments"]
                looks.append({"updates": turn, "search_ms": told(took), "update_ms": updating, "files": files})
                print(f"  stream: {turn} updates, search p50 {looks[-1]['search_ms']['p50']:.1f} ms", flush=True)
            began = time.perf_counter()
            layer.add([document(9_000_000 + turn % 500, turn + 1, chunks=1)])
            each.append(1000 * (time.perf_counter() - began))
        consistent = layer.status()["consistent"]
        size_mb = disk(copy / "index")
    shutil.rmtree(copy, ignore_errors=True)
    return {"updates": updates, "update_ms": told(each), "looks": looks, "consistent": consistent, "index_mb": size_mb}


def told(values: Sequence[float]) -> dict[str, float]:
    some = sorted(values)
    return {
        "n": len(some),
        "p50": statistics.median(some),
        "p90": some[min(len(some) - 1, int(0.90 * len(some)))],
        "p99": some[min(len(some) - 1, int(0.99 * len(some)))],
        "max": some[-1],
    }


def rss() -> float:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


def disk(path: Path) -> float:
    return bytes_below(path) / 1e6


def environment() -> dict[str, Any]:
    from factform.hardware import processor

    names = ("lancedb", "pylance", "numpy", "torch")
    from importlib.metadata import version

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        **processor(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in names},
        "load_at_start": os.getloadavg()[0],
    }


def parts(arguments: argparse.Namespace, done: set[str]) -> Iterator[tuple[str, Any]]:
    """Name and result of each part that is asked for and not `done`."""
    sizes = [*SIZES, 1_000_000] if arguments.million else [*SIZES]
    if arguments.most:
        sizes = [number for number in sizes if number <= arguments.most]
    cache: Path = arguments.cache
    for number in sizes:
        build(cache / f"s{number}", number)
    if "sizes" in arguments.parts:
        for number in (number for number in sizes if f"{number}" not in done):
            print(f"  {number} chunks: searching", flush=True)
            command = [sys.executable, __file__, "--cache", str(cache), "--size", str(cache / f"s{number}")]
            ended = subprocess.run(command, check=True, capture_output=True, text=True)
            yield f"{number}", json.loads(ended.stdout.splitlines()[-1])
    largest = cache / f"s{max(number for number in sizes if number <= 100_000)}"
    if "fresh" in arguments.parts and "fresh" not in done:
        print(f"  fresh: saving and removing {arguments.saves} documents", flush=True)
        yield "fresh", fresh(largest, arguments.saves)
    if "stream" in arguments.parts and "stream" not in done:
        yield "stream", stream(largest, arguments.updates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "search_scale")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--most", type=int, default=0, help="leave out larger sizes")
    parser.add_argument("--parts", nargs="+", default=["sizes", "fresh", "stream"])
    parser.add_argument("--saves", type=int, default=200)
    parser.add_argument("--updates", type=int, default=0, help=f"of the stream, by default {UPDATES:,}")
    parser.add_argument("--full", action="store_true", help=f"{FULL_UPDATES:,} updates")
    parser.add_argument("--again", action="store_true", help="measure parts anew that the report holds")
    parser.add_argument("--size", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watch:
        watch(arguments.watch)
        return
    if arguments.size:
        print(json.dumps(size(arguments.size)))
        return
    arguments.updates = arguments.updates or (FULL_UPDATES if arguments.full else UPDATES)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    report = json.loads(arguments.out.read_text("utf-8")) if arguments.out.is_file() else {}
    now = environment()
    same = report.get("environment", {}).get("commit") == now["commit"] and not arguments.again
    done = {name for name in report if same}
    if "stream" in done and report["stream"]["updates"] != arguments.updates:
        done.remove("stream")
    report["environment"] = now
    for name, value in parts(arguments, done):
        report[name] = value
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        print(f"{name}: {json.dumps(value)[:1500]}", flush=True)


if __name__ == "__main__":
    main()
