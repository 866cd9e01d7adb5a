"""Hostile files among good ones: each read or reported within its limits, the good ones searchable, nothing on disk."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest
from hash_encoder import HashEncoder

from factform.facts.sandbox import Limits
from factform.facts.store import DataLayer
from factform.records import Receipt, Source

LIMITS = Limits(seconds=10.0, memory_mb=384, workers=2)
GOOD = [
    Source("good/first", b"The zebra stands at the gate.", "first.txt"),
    Source("good/page", b"<html><body><p>The giraffe eats leaves.</p></body></html>", "page.html"),
    Source("good/last", b"# Notes\n\nThe walrus sleeps.\n", "last.md"),
]


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[DataLayer]:
    with DataLayer.open(tmp_path / "state", HashEncoder(), parsing=LIMITS) as opened:
        yield opened


def check(layer: DataLayer, sources: list[Source], seconds: float) -> dict[str, Receipt]:
    """Add `sources` between good documents; those must be found, and no call may take longer than `seconds`."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    receipts = {r.document: r for r in layer.add([GOOD[0], *sources, *GOOD[1:]])}
    assert time.monotonic() - started < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024 * LIMITS.memory_mb  # in KB
    for word, source in zip(("zebra", "giraffe", "walrus"), GOOD, strict=True):
        assert layer.search(word, k=1).hits[0].chunk.document == source.document
    assert layer.status()["pending"] == 0
    assert list(receipts) == [GOOD[0].document, *[s.document for s in sources], *[s.document for s in GOOD[1:]]]
    return receipts


def reasons(receipts: dict[str, Receipt]) -> dict[str, str]:
    return {name: receipt.error or "" for name, receipt in receipts.items() if receipt.status == "failed"}


def test_archives(layer: DataLayer, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("canary-outside")
    outside = {"../../escape.txt": b"x", str(tmp_path / "absolute.txt"): b"x", "word/../../escape.txt": b"x"}
    good = hostile.docx(hostile.paragraph("a quiet sentence"))
    sources = [
        Source("bomb", hostile.zip_bomb(80), "bomb.docx"),
        Source("laughs", hostile.billion_laughs(), "laughs.docx"),
        Source("external", hostile.external_entity(str(secret)), "external.docx"),
        Source("paths", hostile.docx(hostile.paragraph("kept inside"), extra=outside), "paths.docx"),
        Source("link", hostile.with_symlink(good, "word/media/x", str(secret)), "link.docx"),
        Source("cut", good[: len(good) // 2], "cut.docx"),
        Source("nested", hostile.docx("<w:p>" * 5000 + "</w:p>" * 5000), "nested.docx"),
    ]
    held = {path for path in tmp_path.rglob("*") if "state" not in path.parts}
    receipts = check(layer, sources, 30.0)
    failed = reasons(receipts)
    assert {"bomb", "cut"} <= set(failed)
    assert all(len(reason) > 20 for reason in failed.values()), failed
    assert receipts["paths"].status == receipts["link"].status == "created"
    assert {path for path in tmp_path.rglob("*") if "state" not in path.parts} == held
    texts = json.dumps([hit.chunk.text for word in ("ha", "canary", "sentence") for hit in layer.search(word).hits])
    assert "canary" not in texts
    assert "hahaha" not in texts


def test_texts(layer: DataLayer) -> None:
    sources = [
        Source("endless", b"endless " * 80_000, "endless.txt"),
        Source("wordless", b"x" * 300_000, "wordless.txt"),
        Source("broken", b"caf\xe9 and \xff\xfe", "broken.txt"),
        Source("nul", b"abc\x00def", "nul.md"),
        Source("utf32", b"\xff\xfe\x00\x00a\x00\x00\x00", "utf32.txt"),
        Source("odd16", b"\xff\xfea\x00b", "odd16.txt"),
        Source("lying", b'<html><meta charset="utf-16"><p>hello</p></html>', "lying.html"),
        Source("quotes", b"> " * 16_000, "quotes.md"),
        Source("list", hostile.deep_list(2000), "list.md"),
        Source("json", b"[" * 200_000 + b"]" * 200_000, "json.txt"),
    ]
    receipts = check(layer, sources, 60.0)
    failed = reasons(receipts)
    assert {"broken", "nul", "utf32", "odd16"} <= set(failed)
    assert "byte offset" in failed["broken"]
    assert receipts["endless"].status == "created"
    assert receipts["endless"].chunks > 300


def test_markup_and_pages(layer: DataLayer) -> None:
    whole = hostile.pdf(40)
    sources = [
        Source("deep", hostile.deep_html(5_000), "deep.html"),
        Source("table", b"<table><tr><td>" * 2_000 + b"bottom", "table.html"),
        Source("entities", b"<!DOCTYPE x [<!ENTITY a 'ha'>]><html><body>&a;&a; text</body></html>", "entities.html"),
        Source("pages", whole, "pages.pdf"),
        Source("half", whole[: len(whole) // 2], "half.pdf"),
        Source("loop", whole.replace(b"/Kids [4 0 R", b"/Kids [2 0 R", 1), "loop.pdf"),
        Source("noise", b"%PDF-1.7\n" + bytes(range(256)) * 400, "noise.pdf"),
    ]
    receipts = check(layer, sources, 60.0)
    assert receipts["pages"].status == "created"
    assert "noise" in reasons(receipts)


def test_a_limit_that_is_reached_is_told_in_the_receipt(tmp_path: Path) -> None:
    slow = Source("slow", b"# a\n" * 400_000, "slow.md")
    limits = Limits(seconds=0.5, workers=1)
    with DataLayer.open(tmp_path / "state", HashEncoder(), parsing=limits) as layer:
        layer.add([GOOD[1]])
        receipts = check(layer, [slow], 30.0)
        assert "facts.parse_seconds" in reasons(receipts)["slow"]
    # Reported once, not tried again at every opening.
    with DataLayer.open(tmp_path / "state", HashEncoder(), parsing=limits) as layer:
        assert layer.status()["failed"] == 1
        assert layer.status()["pending"] == 0
