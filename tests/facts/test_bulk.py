"""Many documents at once: read lazily, held briefly, acknowledged in order, gone on with after an interrupt."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hash_encoder import HashEncoder

from factform.facts import writer
from factform.facts.batches import BATCH_DOCUMENTS
from factform.facts.store import DataLayer
from factform.records import Source


def numbered(number: int) -> Source:
    return Source(f"d{number}", f"Body {number} of many.".encode(), f"d{number}.txt")


def test_sources_are_taken_as_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "COMMIT_CHUNKS", 40)
    pulled, done, ahead = 0, 0, []

    def sources() -> Iterator[Source]:
        nonlocal pulled
        for number in range(300):
            pulled += 1
            ahead.append(pulled - done)
            yield numbered(number)

    def progress(number: int, total: int, document: str) -> None:
        nonlocal done
        assert document == f"d{number - 1}"
        done = number

    with DataLayer.open(tmp_path / "state", HashEncoder()) as layer:
        receipts = layer.add(sources(), progress=progress)
        assert [r.document for r in receipts] == [f"d{number}" for number in range(300)]
        assert layer.status()["documents"] == done == 300
        assert layer.status()["consistent"]
    # Two groups under way, one held, one batch being gathered: at most 40 chunks and the batch that went over each.
    assert max(ahead) <= 3 * (40 + BATCH_DOCUMENTS) + BATCH_DOCUMENTS + 1


def test_documents_that_come_again_while_their_first_version_is_under_way(tmp_path: Path) -> None:
    def sources() -> Iterator[Source]:
        for turn in ("first", "second", "second", "third"):
            for number in range(BATCH_DOCUMENTS + 5):
                yield Source(f"d{number}", f"{turn} body {number}".encode(), "d.txt")

    with DataLayer.open(tmp_path / "state", HashEncoder()) as layer:
        statuses = [r.status for r in layer.add(sources())]
        n = BATCH_DOCUMENTS + 5
        expected = ["created"] * n + ["updated"] * n + ["unchanged"] * n + ["updated"] * n
        assert statuses == expected
        assert layer.search("third body 3", k=1).hits[0].chunk.text.startswith("third")
        assert layer.status()["documents"] == n
        assert layer.status()["versions"] == 3 * n


def test_a_failing_commit_ends_the_load_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "COMMIT_CHUNKS", 32)
    with DataLayer.open(tmp_path / "state", HashEncoder()) as layer:
        real, acknowledged = writer.Writer._commit_all, []

        def failing(self: writer.Writer, embedded: object) -> object:
            if len(acknowledged) >= 64:
                raise OSError("no more")
            return real(self, embedded)  # type: ignore[arg-type]

        monkeypatch.setattr(writer.Writer, "_commit_all", failing)
        with pytest.raises(OSError, match="no more"):
            layer.add((numbered(i) for i in range(200)), progress=lambda n, of, name: acknowledged.append(name))
        monkeypatch.setattr(writer.Writer, "_commit_all", real)
        assert 64 <= len(acknowledged) < 200
        receipts = layer.add([numbered(i) for i in range(200)])
        assert len(receipts) == 200
        assert {r.status for r in receipts[: len(acknowledged)]} == {"unchanged"}
        assert layer.status()["documents"] == 200
        assert layer.status()["consistent"]


FLAT = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from hash_encoder import HashEncoder
from factform.facts.store import DataLayer
from factform.records import Source

def rss():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) / 1024

seen = []
def progress(done, total, document):
    if done % 500 == 0:
        seen.append(rss())

def sources(n):
    for i in range(n):
        words = " ".join(f"w{(i * 31 + j) % 997}" for j in range(120))
        yield Source(f"d{i}", f"Number {i}. {words}.".encode(), "d.txt", "text")

with DataLayer.open(Path(sys.argv[1]), HashEncoder()) as layer:
    layer.add(sources(5_000), progress=progress)
print(*[round(x) for x in seen])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FLAT, str(tmp_path / "state"), str(Path(__file__).parent)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    resident = [int(megabytes) for megabytes in told]
    assert len(resident) == 10
    # 4,000 documents of 800 bytes later: receipts, some 3 MB, and what Lance's merge keeps of the table (docs/log.md).
    # Held in memory, chunks, vectors and token vectors of as many would be some 100 MB.
    assert resident[-1] - resident[1] < 70, resident
