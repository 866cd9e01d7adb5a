"""Parsing in processes with limits: the same result as here, and no way for a document to harm more than itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.errors import DocumentError
from factform.facts import sandbox as module
from factform.facts.parse import parse
from factform.facts.sandbox import Limits, Sandbox
from factform.facts.sandbox_worker import Reply, Request
from factform.facts.wire import pack, unpack
from factform.records import Block, PageSpan, Parsed, Source

SLOW_TEXT = b"# a\n" * 400_000
"""Markdown of 1.6 MB that takes seconds to parse: what a test of time limits needs is a document that is slow, not one
that has found a fault."""


@pytest.fixture
def box() -> Iterator[Sandbox]:
    made = Sandbox(Limits(seconds=20.0, memory_mb=512, workers=2))
    yield made
    made.close()


def html(text: str = "hello") -> Source:
    return Source("a", f"<html><body><h1>Title</h1><p>{text}</p></body></html>".encode(), "a.html")


def running(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def pids(box: Sandbox) -> set[int]:
    return {worker.pid for worker in box._all}


# --- the wire -------------------------------------------------------------------------------

SPANS = st.tuples(st.integers(0, 99), st.integers(0, 99))
BLOCKS = st.builds(
    Block,
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(["heading", "paragraph", "list", "table", "code"]),
    st.integers(0, 6),
    st.lists(SPANS, max_size=3).map(tuple),
)
PAGES = st.lists(st.builds(PageSpan, st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), max_size=3).map(tuple)
ANY_TEXT = st.text(st.characters(), max_size=40)  # lone surrogates too


@given(ANY_TEXT, ANY_TEXT, st.lists(BLOCKS, max_size=4).map(tuple), PAGES)
def test_a_parsed_document_comes_back_as_it_was_sent(text: str, title: str, blocks: object, pages: object) -> None:
    reply = Reply("parsed", "", Parsed(text, title, blocks, pages))  # type: ignore[arg-type]
    assert unpack(Reply, pack(reply)) == reply


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{}", b"[]", b"null", b'["parsed","",["t","t",[],[]],1]', b'["other","",null]', b'["parsed",1,null]'),
        b'["parsed","",["t","t",[[0,"1","paragraph",0,[]]],[]]]',
        b'["parsed","",["t","t",[[true,1,"code",0,[]]],[]]]',
    ],
)
def test_what_is_not_the_record_asked_for_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(Reply, data)


def test_none_and_words_are_told_apart_on_the_wire() -> None:
    for media_type in (None, "", "html"):
        request = Request("n", media_type, None, 5, "auto")
        assert unpack(Request, pack(request)) == request


# --- the same result ------------------------------------------------------------------------


def test_a_worker_reads_what_the_parser_reads_here(box: Sandbox) -> None:
    sources = [
        html(),
        Source("b", hostile.pdf(3), "b.pdf"),
        Source("c", hostile.docx(hostile.paragraph("x")), "c.docx"),
    ]
    sources.append(Source("d", b"word " * 200_000, "d.txt", title="Given"))
    for source in sources:
        assert box.parse(source) == parse(source)
    assert len(pids(box)) == 1


@pytest.mark.parametrize("source", [Source("a", b"", "a.html"), Source("a", b"%PDF-1.4 no", "a.pdf")])
def test_a_refusal_is_the_parsers_own(box: Sandbox, source: Source) -> None:
    with pytest.raises(DocumentError) as here:
        parse(source)
    with pytest.raises(DocumentError) as there:
        box.parse(source)
    assert str(there.value) == str(here.value)


def test_small_text_needs_no_process(box: Sandbox) -> None:
    box.parse(Source("a", b"hello", "a.txt"))
    box.parse(Source("a", b"# hello", "a.md"))
    assert not pids(box)


@pytest.mark.parametrize("body", [b"a\n", b"# a\n", b"> ", b"- ", b"[", b"*a **a ", b"|-", b"[a]: ", b"<!--", b"`a"])
def test_markdown_parsed_here_takes_no_time_worth_a_process(body: bytes) -> None:
    size = module.HERE_BYTES["markdown"]
    started = time.process_time()
    Sandbox().parse(Source("a", (body * size)[:size], "a.md"))
    assert time.process_time() - started < 2.0  # 0.12 s at most on the machine this was measured on


def test_a_worker_imports_no_torch_and_no_index() -> None:
    code = "import sys, factform.facts.sandbox_worker; print(*{n.partition('.')[0] for n in sys.modules})"
    names = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "lancedb", "pyarrow", "numpy", "transformers", "pydantic", "lxml", "pypdfium2"} & set(names)


# --- limits ---------------------------------------------------------------------------------


def test_too_slow_is_ended_and_says_which_limit() -> None:
    box = Sandbox(Limits(seconds=0.3))
    box.parse(html())  # Python's start is no document's fault
    (first,) = pids(box)
    with pytest.raises(DocumentError, match=r"longer than 0\.3 s.*facts\.parse_seconds"):
        box.parse(Source("a", SLOW_TEXT, "a.md"))
    assert gone(first)
    assert box.parse(html()).title == "Title"
    box.close()


def test_too_much_memory_is_refused_and_says_which_limit() -> None:
    box = Sandbox(Limits(seconds=60.0, memory_mb=64))
    with pytest.raises(DocumentError, match=r"more than 64 MB of memory.*facts\.parse_memory_mb"):
        box.parse(Source("a", b"<p>" + b"<i>x</i>" * 1_500_000, "a.html"))
    assert box.parse(html()).title == "Title"
    box.close()


def test_a_worker_that_dies_costs_its_document(box: Sandbox) -> None:
    box.parse(html())
    (pid,) = pids(box)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(box.parse, Source("a", SLOW_TEXT, "a.md"))
        time.sleep(0.2)
        os.kill(pid, 9)
        with pytest.raises(DocumentError, match=r"died \(SIGKILL\).*facts\.parse_memory_mb"):
            asked.result()
    assert gone(pid)  # no zombie either
    assert box.parse(html()).title == "Title"


def test_a_worker_is_replaced_after_some_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOCUMENTS", 2)
    box, seen = Sandbox(), set()
    for _ in range(4):
        box.parse(html())
        seen |= pids(box)
    assert len(seen) == 2
    box.close()
    assert all(gone(pid) for pid in seen)


def test_several_at_a_time_in_order_and_one_is_kept(box: Sandbox) -> None:
    futures = [box.start(html(f"number {i}")) for i in range(8)]
    assert [f"number {i}" in future.result().text for i, future in enumerate(futures)] == [True] * 8
    assert 1 <= len(pids(box)) <= 2
    box.rest()
    assert len(pids(box)) == 1


def test_closing_ends_every_worker(box: Sandbox) -> None:
    box.parse(html())
    (pid,) = pids(box)
    box.close()
    assert gone(pid)
    assert box.parse(html()).title == "Title"


CHILD = """
import sys, threading, time
from factform.facts.sandbox import Sandbox
from factform.records import Source
box = Sandbox()
box.parse(Source("a", b"<p>hello</p>", "a.html"))
if sys.argv[1] == "busy":
    threading.Thread(target=box.parse, args=(Source("a", b"# a\\n" * 3_000_000, "a.md"),), daemon=True).start()
    time.sleep(0.5)
print(*[worker.pid for worker in box._all], flush=True)
if sys.argv[1] != "leave":
    time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "busy", "leave"])
def test_workers_end_with_whoever_started_them(state: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", CHILD, state], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert state == "leave" or running(pid)
    if state != "leave":
        parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid, 10.0)


PROBE = """
import resource, socket, sys
from pathlib import Path
import factform.facts.sandbox_worker as w
w._limit(256)
told = []
for what, attempt in {"write": lambda: Path(sys.argv[1]).write_text("x"), "memory": lambda: bytearray(1 << 30)}.items():
    try:
        attempt()
        told.append(what + " allowed")
    except (OSError, MemoryError):
        told.append(what + " refused")
for what in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
    told.append(str(resource.getrlimit(what)[0] == resource.getrlimit(what)[1]))
print("|".join(told))
"""


def test_a_worker_can_write_no_file_and_raise_no_limit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "write refused|memory refused|True|True|True|True"


def test_a_worker_sees_no_secret_of_the_environment(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-in-environment")
    box.parse(html())
    (pid,) = pids(box)
    assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
