"""Taking documents in from the command line: labels, standard input, pages, folders as they are and as they change."""

from __future__ import annotations

import http.server
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from factform.cli.sources import typed
from factform.project import Project
from factform.records import Change, Source

from .conftest import Run


@pytest.fixture
def docs(project: Path) -> Path:
    folder = project / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# Zebras\n\nThe zebra farm opened.\n")
    (folder / "b.md").write_text("# Harbour\n\nA quiet harbour.\n")
    return folder


# --- add --------------------------------------------------------------------------------------


def test_labels_and_metadata_of_a_call(run: Run, project: Path, docs: Path) -> None:
    given = ["--access", "staff", "--access", "board", "--meta", "year=2026", "--meta", "dept=tax"]
    assert run("add", project / "docs" / "*.md", *given, "--project", project).code == 0
    assert run("add", docs, "--project", project, "--json").json[0]["status"] == "unchanged"
    info = {d["document"]: d for d in run("documents", "--project", project, "--json").json}["docs/a.md"]
    assert (info["access"], info["metadata"]) == (["staff", "board"], {"year": 2026, "dept": "tax"})
    assert run("add", docs, "--access", "", "--project", project, "--json").json[0]["status"] == "updated"
    info = {d["document"]: d for d in run("documents", "--project", project, "--json").json}["docs/a.md"]
    assert (info["access"], info["metadata"]) == ([], {"year": 2026, "dept": "tax"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("2026", 2026), ("1.5", 1.5), ("-1", -1), ("true", True), ("null", None), ('"2026"', "2026"), ("", "")),
        *(("May", "May"), ("[1]", "[1]"), ("{}", "{}"), ("NaN", "NaN"), ("Infinity", "Infinity"), ("1e999", "1e999")),
        *(("007", "007"), ("2026-11-24", "2026-11-24"), ("[" * 5000, "[" * 5000)),
    ],
)
def test_metadata_is_typed(text: str, value: object) -> None:
    assert typed(text) == value
    assert type(typed(text)) is type(value)


@pytest.mark.parametrize(
    "given",
    [
        ["--meta", "year"],
        ["--meta", "=1"],
        ["--access", "", "--access", "staff"],
        ["--name", "a.md"],
        ["-", "--jsonl", "-"],
    ],
)
def test_what_makes_no_sense_is_wrong_usage(run: Run, project: Path, docs: Path, given: list[str]) -> None:
    assert run("add", docs, *given, "--project", project, "--json").code == 2


def test_standard_input(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    feed(b"# Pets\n\nA dog is welcome.\n")
    (receipt,) = run("add", "-", "--name", "pets.md", "--project", project, "--json").json
    assert (receipt["document"], receipt["status"]) == ("pets.md", "created")
    feed(b"<html><body><p>From a pipe.</p></body></html>")
    assert run("add", "-", "--id", "piped", "--project", project, "--json").json[0]["document"] == "piped"
    hits = run("search", "pipe", "--project", project, "--json").json["hits"]
    assert "From a pipe." in [hit["text"] for hit in hits if hit["document"] == "piped"]
    feed(b'{"id": "r1", "text": "One row."}\n{"id": "r2", "text": "Another."}\n')
    rows = run("add", "--jsonl", "-", "--project", project, "--json").json
    assert [row["document"] for row in rows] == ["r1", "r2"]
    unnamed = run("add", "-", "--project", project, "--json")
    assert (unnamed.code, unnamed.json[0]["status"]) == (1, "failed")


@pytest.fixture
def site() -> Iterator[str]:
    """A server of one page that knows its ETag."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            same = self.headers["If-None-Match"] == '"1"'
            body = b"" if same else b"<html><body><p>Opening hours are nine to five.</p></body></html>"
            self.send_response(304 if same else 200)
            for name, value in (("ETag", '"1"'), ("Content-Type", "text/html"), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_page_is_taken_in_and_asked_for_again_only_if_it_changed(run: Run, project: Path, site: str) -> None:
    refused = run("add", site, "--project", project, "--json")
    assert (refused.code, "web.allow" in refused.json[0]["error"]) == (1, True)
    with (project / "factform.toml").open("a") as file:
        file.write('[web]\nallow = ["127.0.0.1:*"]\nprivate = true\n')
    url = f"{site}/hours#today"
    (first,) = run("add", url, "--project", project, "--json").json
    assert (first["document"], first["status"]) == (f"{site}/hours", "created")
    assert run("add", url, "--project", project, "--json").json[0]["status"] == "unchanged"
    with Project.open(project) as opened:
        noted = opened.facts.origins.fetched(f"{site}/hours")
        assert noted
        assert (noted.etag, noted.sha256) == ('"1"', first["sha256"])
    # Where the store has other bytes under its id, "not changed" would be no answer.
    with Project.open(project) as opened:
        opened.add_sources([Source(f"{site}/hours", b"Other words.", "hours.html")])
    (again,) = run("add", url, "--project", project, "--json").json
    assert (again["status"], again["sha256"]) == ("updated", first["sha256"])
    # Labels that change are taken in though the page did not.
    assert run("add", url, "--access", "staff", "--project", project, "--json").json[0]["status"] == "updated"
    assert run("remove", f"{site}/hours", "--project", project).code == 0
    assert run("add", url, "--project", project, "--json").json[0]["status"] == "created"


# --- sync and watch ---------------------------------------------------------------------------


def test_sync_tells_what_it_did_and_what_it_would_do(run: Run, project: Path, docs: Path) -> None:
    dry = run("sync", docs, "--dry-run", "--project", project, "--json")
    assert [(c["action"], c["document"]) for c in dry.json] == [("add", "docs/a.md"), ("add", "docs/b.md")]
    (change, _) = run("sync", docs, "--project", project, "--json").json
    assert set(change) == set(Change.__dataclass_fields__)
    (docs / "a.md").rename(docs / "c.md")
    (docs / "empty.md").touch()
    shown = run("sync", docs, "--project", project)
    assert shown.code == 1
    assert "docs/a.md -> docs/c.md" in shown.out
    assert "3 documents: 1 unchanged, 1 rename, 1 failed" in shown.out
    shutil.rmtree(docs)
    refused = run("sync", docs, "--project", project, "--json")
    assert (refused.code, refused.json["error"]["type"]) == (1, "SyncRefused")
    assert run("sync", docs, "--force", "--project", project).code == 0


class Watching:
    """`factform watch` as a process; `lines` are the changes it printed."""

    def __init__(self, project: Path, folder: Path):
        command = [sys.executable, "-m", "factform", "watch", str(folder), "--debounce", "50", "--json"]
        self.process = subprocess.Popen(
            [*command, "--project", str(project)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def wait_for(self, action: str, document: str, times: int = 1) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [x for x in self.lines if (x["action"], x["document"]) == (action, document)]
            return len(found) >= times

        until(there, lambda: f"{action} {document} in {self.lines}")
        return found[-1]

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join()
        assert self.process.stdout
        assert self.process.stderr
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def until(true: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


@pytest.mark.slow
def test_watch_keeps_the_store_equal_to_the_folder(project: Path, docs: Path) -> None:
    with Project.open(project) as reading:

        def finds(words: str, document: str) -> bool:
            return any(words in hit.chunk.text for hit in reading.search(words).hits if hit.chunk.document == document)

        watching = Watching(project, docs)
        try:
            watching.wait_for("add", "docs/a.md")
            watching.wait_for("add", "docs/b.md")
            (docs / "c.md").write_text("A new boiler.")
            assert watching.wait_for("add", "docs/c.md")["visible_ms"] > 0
            assert finds("new boiler", "docs/c.md")
            # As editors save: into another file that then takes the name.
            (docs / ".c.md.swp").write_text("x")
            (docs / "c.md~").write_text("The mended boiler.")
            (docs / "c.md~").replace(docs / "c.md")
            watching.wait_for("update", "docs/c.md")
            assert finds("mended boiler", "docs/c.md")
            assert not finds("new boiler", "docs/c.md")
            (docs / "c.md").rename(docs / "d.md")
            assert watching.wait_for("rename", "docs/d.md")["renamed_from"] == "docs/c.md"
            # A folder moved in, with what is in it; and out again.
            outside = project.parent / "outside"
            (outside / "deep").mkdir(parents=True)
            (outside / "deep" / "e.md").write_text("From outside.")
            (outside / "circle").symlink_to(docs)
            outside.rename(docs / "moved")
            watching.wait_for("add", "docs/moved/deep/e.md")
            (docs / "moved").rename(docs / "again")
            assert watching.wait_for("rename", "docs/again/deep/e.md")["renamed_from"] == "docs/moved/deep/e.md"
            (docs / "again" / "deep" / "e.md").write_text("Changed inside.")
            watching.wait_for("update", "docs/again/deep/e.md")
            # One bad file does not end it.
            (docs / "bad.md").write_bytes(b"\x00\xff\xfe")
            (docs / b"n\xff.md".decode("utf-8", "surrogateescape")).write_text("Its name is not valid.")
            watching.wait_for("failed", "docs/bad.md")
            watching.wait_for("failed", "docs/n\udcff.md")
            (docs / "d.md").unlink()
            watching.wait_for("remove", "docs/d.md")
            assert "docs/d.md" not in {info.document for info in reading.facts.documents()}
        finally:
            code = watching.end()
        assert code == 0


@pytest.mark.slow
def test_watch_outlives_its_folder(project: Path, docs: Path) -> None:
    watching = Watching(project, docs)
    try:
        watching.wait_for("add", "docs/b.md")
        docs.rename(project / "elsewhere")
        assert "not there" in watching.wait_for("failed", str(docs))["error"]
        (project / "elsewhere").rename(docs)
        (docs / "c.md").write_text("Back again.")
        watching.wait_for("add", "docs/c.md")
        # Written in pieces over a long time: what stays is the whole.
        with (docs / "slow.md").open("w") as file:
            for number in range(20):
                file.write(f"Line {number}.\n\n")
                file.flush()
                time.sleep(0.03)
        with Project.open(project) as reading:

            def whole() -> bool:
                info = reading.facts.document("docs/slow.md")
                return info is not None and "Line 19." in reading.facts.text_of(info.document, info.version)

            until(whole, lambda: "the whole file")
    finally:
        code = watching.end(signal.SIGTERM)
    assert code == 0
    assert "remove" not in {line["action"] for line in watching.lines}
