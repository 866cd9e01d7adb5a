"""Fetching pages, against real servers on this machine: what is allowed comes whole, all else says why not."""

from __future__ import annotations

import gzip
import http.server
import random
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from factform.errors import DocumentError
from factform.records import Source
from factform.settings import WebSettings
from factform.web import Page, canonical, fetch, refused

OWN = WebSettings(allow=("127.0.0.1:*", "localhost:*", "[::1]:*"), private=True, timeout_s=5, max_mb=1)
PEM = Path(__file__).with_name("localhost.pem")
"""A certificate for `localhost` with its key, of use to nobody but this test."""

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Server:
    """A server whose pages are functions; `seen` are the requests that reached it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        outer = self
        self.pages: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                outer.pages[self.path.partition("?")[0]](self)

            def log_message(self, *_: object) -> None:
                return None

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                return None  # a client that hangs up is what is tested here

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def page(body: bytes, kind: str | None = "text/html", status: int = 200, **more: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        if kind is not None:
            handler.send_header("Content-Type", kind)
        for name, value in {"Content_Length": str(len(body)), **more}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(to: str, status: int = 302) -> Answer:
    return page(b"", status=status, Location=to)


def got(found: Page) -> Source:
    assert found.source is not None
    return found.source


def test_a_page_is_a_document_called_by_its_url(server: Server) -> None:
    server.pages["/a/Notes"] = page(b"<p>hello</p>", ETag='"1"')
    found = fetch(server.url("/a/Notes?x=1#part"), OWN)
    assert found.url == got(found).document == server.url("/a/Notes?x=1")
    assert (got(found).data, got(found).name, found.etag) == (b"<p>hello</p>", "Notes.html", '"1"')
    (path, headers) = server.seen[0]
    assert path == "/a/Notes?x=1"
    assert headers["user-agent"].startswith("factform/")
    assert headers["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        ("/", "text/html; charset=utf-8", "index.html"),
        ("/a.htm", "text/html", "a.htm"),
        ("/a.php", "application/xhtml+xml", "a.php.html"),
        ("/read.md", "text/plain", "read.md"),
        ("/read", "text/plain", "read.txt"),
        ("/a.pdf", "application/octet-stream", "a.pdf"),
        ("/a.pdf", None, "a.pdf"),
        ("/a", "application/pdf", "a.pdf"),
        ("/a", "text/markdown", "a.md"),
        ("/a.ndjson", "application/jsonl", "a.ndjson"),
        ("/a.md", "text/csv", "a.md.csv"),
        ("/a", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "a.docx"),
    ],
)
def test_the_content_type_decides_how_it_is_read(server: Server, path: str, kind: str | None, name: str) -> None:
    server.pages[path] = page(b"x", kind)
    assert got(fetch(server.url(path), OWN)).name == name


def test_a_charset_that_only_the_header_states_is_not_lost(server: Server) -> None:
    server.pages["/l"] = page("Höhe".encode("latin-1"), "text/plain; charset=iso-8859-1")
    server.pages["/u"] = page("Höhe".encode(), "text/plain; charset=iso-8859-1")
    assert got(fetch(server.url("/l"), OWN)).data == got(fetch(server.url("/u"), OWN)).data == "Höhe".encode()


def test_a_page_that_has_not_changed_is_not_sent_again(server: Server) -> None:
    server.pages["/a"] = page(b"", None, 304)
    found = fetch(server.url("/a"), OWN, etag='"1"', last_modified="Sun, 01 Nov 2026 00:00:00 GMT")
    assert found.source is None
    assert server.seen[0][1]["if-none-match"] == '"1"'
    assert server.seen[0][1]["if-modified-since"].startswith("Sun, 01 Nov")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/", 'put "example.org" into web.allow'),
        ("http://127.0.0.1:81/", 'put "127.0.0.1:81" into web.allow'),
        ("http://deep.sub.example.com:8080/", "not allowed"),
        ("http://example.net.evil.test/", "not allowed"),
        ("ftp://example.net/x", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("http:///x", "no host"),
        ("http://somebody:secret@example.net/", "user name or password"),
        ("http://[::1/", "not a URL"),
    ],
)
def test_what_is_not_allowed_is_not_asked(url: str, why: str) -> None:
    rules = WebSettings(allow=("example.net", "*.example.com"))
    with pytest.raises(DocumentError, match=why) as caught:
        fetch(url, rules)
    assert "secret" not in str(caught.value) + canonical(url)


def test_without_a_list_nothing_is_allowed(server: Server) -> None:
    with pytest.raises(DocumentError, match=r"web\.allow in factform\.toml"):
        fetch(server.url("/"), WebSettings(private=True))
    assert server.seen == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "017700000001", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_no_spelling_leads_to_this_machine(server: Server, host: str) -> None:
    server.pages["/"] = page(b"secret")
    rules = WebSettings(allow=("*:*",), timeout_s=5)
    with pytest.raises(DocumentError, match=r"(loopback|unspecified) address: not connected"):
        fetch(server.url("/", host), rules)
    assert server.seen == []


PRIVATE = (
    *("127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.1.1", "0.0.0.0"),
    *("100.64.0.1", "100.127.255.255", "192.0.0.8", "198.18.0.1", "203.0.113.5", "240.0.0.1", "255.255.255.255"),
    *("224.0.0.1", "239.1.1.1", "::", "::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1"),
    *("::ffff:10.0.0.1", "::127.0.0.1", "2001:db8::1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "100::1"),
    *("2002:a00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
)


def test_addresses_of_ones_own_are_refused_and_public_ones_are_not() -> None:
    assert [a for a in PRIVATE if not refused(a, private=False)] == []
    public = ("1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")
    assert [a for a in public if refused(a, private=False)] == []
    always = ("169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200", "224.0.0.1", "::")
    assert [a for a in always if not refused(a, private=True)] == []
    assert [a for a in ("127.0.0.1", "10.0.0.1", "fd12::1", "::1") if refused(a, private=True)] == []


def test_a_name_is_looked_up_once_and_the_connection_goes_there(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads to a public address when checked and to this machine when connected to: it is asked once."""
    answers = iter(["203.0.114.7", "127.0.0.1"])
    asked = []

    def lead(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    connected = []

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> Any:
        connected.append(address[0])
        raise OSError("nobody there")

    monkeypatch.setattr(socket, "getaddrinfo", lead)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(DocumentError, match="cannot be fetched"):
        fetch(server.url("/", "rebinding.test"), WebSettings(allow=("*:*",), timeout_s=5))
    assert asked == ["rebinding.test"]
    assert connected == ["203.0.114.7"]


def test_one_refused_address_of_a_name_refuses_all(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def lead(_: str, port: int, *__: Any, **___: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in ("203.0.114.7", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", lead)
    with pytest.raises(DocumentError, match="loopback"):
        fetch(server.url("/", "two.test"), WebSettings(allow=("*:*",), timeout_s=5))


def test_a_redirect_is_followed_and_the_last_url_is_the_id(server: Server) -> None:
    server.pages |= {"/old": redirect("/new?b=1#x", 301), "/new": page(b"x")}
    assert fetch(server.url("/old"), OWN).url == server.url("/new?b=1")


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("http://example.org/", "redirects to what is refused: host example.org is not allowed"),
        ("http://169.254.169.254:80/latest/meta-data", "metadata service: not connected"),
        ("file:///etc/passwd", "only http and https"),
        ("http://me:secret@127.0.0.1/", "user name or password"),
        ("/loop", "more than 5 redirects"),
        ("", "without saying where to"),
    ],
)
def test_a_redirect_is_checked_like_any_url(server: Server, to: str, why: str) -> None:
    server.pages["/loop"] = redirect(to)
    rules = OWN.model_copy(update={"allow": (*OWN.allow, "169.254.169.254")})
    with pytest.raises(DocumentError, match=why) as caught:
        fetch(server.url("/loop"), rules)
    assert "secret" not in str(caught.value)


def test_a_redirect_to_an_address_of_ones_own_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first name is public by a resolver of the test's, the second is this machine by the real one."""
    server.pages["/"] = redirect(server.url("/secret", "localhost"))
    server.pages["/secret"] = page(b"secret")
    real, connect = socket.getaddrinfo, socket.create_connection

    def lead(host: str, port: int, *rest: Any, **more: Any) -> Any:
        if host == "public.test":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.114.7", port))]
        return real(host, port, *rest, **more)

    def here(address: tuple[str, int], *rest: Any, **more: Any) -> Any:
        return connect(("127.0.0.1", address[1]) if address[0] == "203.0.114.7" else address, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lead)
    monkeypatch.setattr(socket, "create_connection", here)
    with pytest.raises(DocumentError, match="host localhost leads to a loopback address"):
        fetch(server.url("/", "public.test"), WebSettings(allow=("*:*",), timeout_s=5))
    assert [path for path, _ in server.seen] == ["/"]


def test_a_server_that_drips_gains_no_time(server: Server) -> None:
    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    def drip_headers(handler: http.server.BaseHTTPRequestHandler) -> None:
        for sign in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 100:
            handler.wfile.write(bytes([sign]))
            handler.wfile.flush()
            time.sleep(0.05)

    server.pages |= {"/body": drip, "/headers": drip_headers}
    for path in ("/body", "/headers"):
        started = time.monotonic()
        with pytest.raises(DocumentError, match=r"longer than 0\.4 s"):
            fetch(server.url(path), OWN.model_copy(update={"timeout_s": 0.4}))
        assert time.monotonic() - started < 2


def test_an_endless_page_and_one_too_large_are_given_up(server: Server) -> None:
    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    announced = page(b"x", "text/plain", Content_Length="2000000")
    server.pages |= {"/endless": endless, "/announced": announced}
    for path in ("/endless", "/announced"):
        with pytest.raises(DocumentError, match="more than 1 MiB"):
            fetch(server.url(path), OWN)


def test_a_page_may_be_packed_but_not_unpack_to_too_much(server: Server) -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"two")
    bomb = gzip.compress(b"\0" * (64 << 20))
    assert len(bomb) < 1 << 17
    server.pages |= {
        "/packed": page(packed, "text/plain", Content_Encoding="gzip"),
        "/bomb": page(bomb, "text/plain", Content_Encoding="gzip"),
        "/bad": page(b"not packed", "text/plain", Content_Encoding="gzip"),
        "/other": page(b"x", "text/plain", Content_Encoding="br"),
    }
    assert got(fetch(server.url("/packed"), OWN)).data == b"one two"
    whole = gzip.compress(random.Random(0).randbytes(60_000))
    for number, cut in enumerate((whole[:40_000], whole[:-1], packed[:-3], whole[:12])):
        server.pages[f"/cut{number}"] = page(cut, "text/plain", Content_Encoding="gzip")
        with pytest.raises(DocumentError, match="cut off"):
            fetch(server.url(f"/cut{number}"), OWN)
    for path, why in (("/bomb", "more than 1 MiB"), ("/bad", "damaged"), ("/other", "'br'")):
        with pytest.raises(DocumentError, match=why):
            fetch(server.url(path), OWN)
    tracemalloc.start()
    try:
        with pytest.raises(DocumentError, match="more than 1 MiB"):
            fetch(server.url("/bomb"), OWN)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_page_is_told(server: Server) -> None:
    server.pages |= {
        "/404": page(b"", status=404),
        "/png": page(b"x", "image/png"),
        "/short": page(b"x", Content_Length="10"),
        "/length": page(b"x", Content_Length="many"),
    }
    for path, why in (
        ("/404", "answered 404"),
        ("/png", "image/png"),
        ("/short", "cannot be"),
        ("/length", "cannot be"),
    ):
        with pytest.raises(DocumentError, match=why):
            fetch(server.url(path), OWN)
    server.close()
    with pytest.raises(DocumentError, match=r"127\.0\.0\.1 cannot be fetched"):
        fetch(server.url("/"), OWN)


def test_tls_is_for_the_name_though_the_connection_goes_to_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    context.sni_callback = lambda _, name, __: names.append(name)
    server = Server(context)
    server.pages["/"] = page(b"x")
    server.pages["/down"] = redirect("http://localhost:1/")
    secure = f"https://localhost:{server.port}"
    try:
        with pytest.raises(DocumentError, match="certificate verify failed"):
            fetch(secure, OWN)
        monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
        assert got(fetch(secure, OWN)).data == b"x"
        with pytest.raises(DocumentError, match="certificate"):
            fetch(f"https://127.0.0.1:{server.port}/", OWN)
        with pytest.raises(DocumentError, match="from https to http"):
            fetch(f"{secure}/down", OWN)
    finally:
        server.close()
    assert "localhost" in names
    assert server.seen[0][1]["host"] == f"localhost:{server.port}"
