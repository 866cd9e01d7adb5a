"""Pages from the web as sources: allowed hosts, checked addresses, limits of size and time.

Knows nothing of documents beyond their bytes and a name whose suffix tells the format.

A URL is an instruction to connect somewhere, and whoever wrote it need not be who runs this. So a name is resolved
once, every address it has is checked, and the connection goes to the address that was checked: a name that leads
elsewhere when it is asked a second time gains nothing by that. Redirects go through the same checks.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import PurePosixPath
from typing import Any

import httpcore
import httpx

from factform import __version__
from factform.errors import DocumentError
from factform.records import Source
from factform.settings import WebSettings
from factform.suffixes import SUFFIXES

SUFFIX_OF: Mapping[str, str] = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "text/plain": ".txt",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/vnd.ms-excel": ".xls",
    "application/json": ".json",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/x-ipynb+json": ".ipynb",
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "message/rfc822": ".eml",
    "application/vnd.ms-outlook": ".msg",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
"""The suffix a page gets for its Content-Type, so that the parsers' one table of suffixes decides what reads it."""

TELLS_NOTHING = frozenset({"", "application/octet-stream", "binary/octet-stream", "text/plain"})
"""Types that servers give to what they do not know: the suffix of the path counts more."""

METADATA_SERVICES = frozenset({"169.254.169.254", "169.254.170.2", "100.100.100.200", "fd00:ec2::254"})
"""Where machines in a cloud ask for their own credentials. Never a document, `web.private` or not."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")
"""Assigned to protocols, which only newer Pythons count as private as a whole."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PIECE = 1 << 16


@dataclass(frozen=True)
class Page:
    """What a URL led to: `url` is the last one, without its fragment. `source` is None where the server said that
    nothing has changed; `etag` and `last_modified` are for asking that."""

    url: str
    source: Source | None
    etag: str = ""
    last_modified: str = ""


def fetch(url: str, rules: WebSettings, *, etag: str = "", last_modified: str = "") -> Page:
    """The page at `url`. DocumentError, its message the reason, when it is not allowed, too large, too slow, not there.

    With `etag` or `last_modified` of an earlier answer the server may say that it has not changed.
    """
    deadline = time.monotonic() + rules.timeout_s
    at = checked(url, rules)
    headers = {"User-Agent": f"factform/{__version__}", "Accept": "*/*", "Accept-Encoding": "gzip"}
    headers |= {"If-None-Match": etag} if etag else {}
    headers |= {"If-Modified-Since": last_modified} if last_modified else {}
    transport = _Transport(rules, deadline)
    try:
        with httpx.Client(transport=transport, trust_env=False, follow_redirects=False, headers=headers) as client:
            for _ in range(rules.redirects + 1):
                with client.stream("GET", at) as response:
                    if response.status_code not in _REDIRECTS:
                        return _page(at, response, rules)
                    at = _next(at, response.headers.get("location", ""), rules)
    except (httpx.TransportError, httpcore.ConnectError) as error:
        raise DocumentError(_reason(error, at, rules)) from error
    except (httpx.InvalidURL, ValueError) as error:
        raise DocumentError(
            f"{_host(at)} answered in a way that cannot be followed ({type(error).__name__})"
        ) from error
    raise DocumentError(f"more than {rules.redirects} redirects (web.redirects); the last leads to {at.host}")


def canonical(url: str) -> str:
    """`url` as documents are called by it, without fragment, user and password. Also for what cannot be fetched."""
    try:
        return str(httpx.URL(url).copy_with(fragment=None, userinfo=b""))
    except (httpx.InvalidURL, ValueError, UnicodeError):
        return re.sub(r"//[^/@]*@", "//", url.partition("#")[0])


def checked(url: str, rules: WebSettings) -> httpx.URL:
    """`url` as one that may be asked, as far as its text tells; where its name leads is checked when connecting."""
    try:
        parsed = httpx.URL(url).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise DocumentError(f"not a URL: {type(error).__name__}") from error
    if parsed.userinfo:
        raise DocumentError("the URL has a user name or password in it: they would be kept with the document's id")
    if parsed.scheme not in _PORTS:
        raise DocumentError(f"scheme {parsed.scheme!r} is not fetched, only http and https")
    if not parsed.host:
        raise DocumentError("the URL names no host")
    host, port = _host(parsed), parsed.port or _PORTS[parsed.scheme]
    if not any(_allows(pattern, host, port) for pattern in rules.allow):
        named = f"[{host}]" if ":" in host else host
        named += "" if port in _PORTS.values() else f":{port}"
        raise DocumentError(f'host {named} is not allowed: put "{named}" into web.allow in factform.toml')
    return parsed


def refused(address: str, *, private: bool) -> str:
    """Why `address` is not connected to; empty when it may be. `private` allows those of one's own network."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if str(ip) in METADATA_SERVICES:
        return "a metadata service"
    if isinstance(ip, ipaddress.IPv6Address) and (inner := _inside(ip)) is not None:
        # What stands inside is where the connection ends.
        return refused(str(inner), private=private)
    if ip.is_multicast:
        return "a multicast address"
    if ip.is_unspecified:
        return "an unspecified address"
    if private:
        return ""
    if ip.is_loopback:
        return "a loopback address"
    if not ip.is_global or ip.is_private or ip.is_reserved or ip.is_link_local or ip in _PROTOCOLS:
        return "a private or reserved address"
    if isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local:
        return "a private or reserved address"
    return ""


def _inside(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address carries: mapped, 6to4, Teredo or NAT64."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def _allows(pattern: str, host: str, port: int) -> bool:
    name, _, ports = pattern.lower().rpartition(":") if re.search(r":(\d+|\*)$", pattern) else (pattern.lower(), "", "")
    name = name.strip("[]").rstrip(".")
    if not (ports == "*" or (str(port) == ports if ports else port in _PORTS.values())):
        return False
    return name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii", "replace").lower().rstrip(".")


def _next(at: httpx.URL, location: str, rules: WebSettings) -> httpx.URL:
    if not location:
        raise DocumentError(f"{at.host} redirects without saying where to")
    try:
        led = checked(str(at.join(location)), rules)
    except DocumentError as error:
        raise DocumentError(f"{at.host} redirects to what is refused: {error}") from error
    if at.scheme == "https" and led.scheme == "http":
        raise DocumentError(f"{at.host} redirects from https to http, which anybody on the way can change")
    return led


def _page(at: httpx.URL, response: httpx.Response, rules: WebSettings) -> Page:
    url = canonical(str(at))
    kept = {"etag": response.headers.get("etag", ""), "last_modified": response.headers.get("last-modified", "")}
    if response.status_code == 304:
        return Page(url, None, **kept)
    if response.status_code != 200:
        raise DocumentError(f"{_host(at)} answered {response.status_code} {response.reason_phrase}".rstrip())
    media, charset = _content_type(response.headers.get("content-type", ""))
    name = _name(at, media)
    limit = rules.max_mb << 20
    if int(response.headers.get("content-length") or 0) > limit:
        raise DocumentError(_too_large(rules))
    data = bytearray()
    for piece in _decoded(response, limit):
        data += piece
        if len(data) > limit:
            raise DocumentError(_too_large(rules))
    return Page(url, Source(url, _as_utf8(bytes(data), media, charset), name), **kept)


def _decoded(response: httpx.Response, limit: int) -> Iterator[bytes]:
    """The body's bytes as meant, in pieces that stay small however much a few bytes unpack to."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    raw = response.iter_raw(_PIECE)
    if encoding in ("identity", ""):
        yield from raw
        return
    if encoding not in ("gzip", "x-gzip"):
        raise DocumentError(f"the page is encoded as {encoding!r}, which was not asked for")
    unpack, fed = zlib.decompressobj(wbits=31), False
    try:
        for piece in raw:
            left = piece
            while left:
                fed = True
                yield unpack.decompress(left, _PIECE)
                left = unpack.unconsumed_tail
                if unpack.eof:  # a gzip file may be several, one after the other
                    left, unpack, fed = unpack.unused_data, zlib.decompressobj(wbits=31), False
        yield unpack.flush()
        if fed:
            raise DocumentError("the page was cut off: its gzip encoding does not end; fetch it again")
    except zlib.error as error:
        raise DocumentError("the page is damaged: its gzip encoding cannot be read") from error


def _content_type(header: str) -> tuple[str, str]:
    message = Message()
    message["content-type"] = header or "application/octet-stream"
    return message.get_content_type() if header else "", message.get_content_charset() or ""


def _name(at: httpx.URL, media: str) -> str:
    """A file name for the page; its suffix says how it is read."""
    name = PurePosixPath(at.path).name or "index"
    own = PurePosixPath(name).suffix.lower()
    if media in TELLS_NOTHING and (own or media != "text/plain"):
        return name
    if media not in SUFFIX_OF:
        raise DocumentError(f"content type {media!r} is not that of a document that can be read")
    suffix = SUFFIX_OF[media]
    return name if SUFFIXES.get(own) == SUFFIXES[suffix] else name + suffix


def _as_utf8(data: bytes, media: str, charset: str) -> bytes:
    """Text that says only in the HTTP header what charset it is in, in UTF-8: the header is not kept with it."""
    if not charset or not media.startswith("text/"):
        return data
    try:
        data.decode("utf-8")
        return data
    except UnicodeDecodeError:
        pass
    try:
        return data.decode(charset).encode("utf-8")
    except (UnicodeError, LookupError):
        return data  # the parser may find out what it is, or say that it cannot


def _too_large(rules: WebSettings) -> str:
    return f"the page has more than {rules.max_mb} MiB (web.max_mb), unpacked or as it is sent"


def _reason(error: Exception, at: httpx.URL, rules: WebSettings) -> str:
    """Why a page did not come, in words that hold nothing of the URL but its host."""
    if isinstance(error.__cause__, _Refused):
        return f"host {_host(at)} leads to {error.__cause__}: not connected (web.private allows one's own network)"
    if isinstance(error, httpx.TimeoutException):
        return f"{_host(at)} took longer than {rules.timeout_s:g} s (web.timeout_s)"
    return f"{_host(at)} cannot be fetched: {type(error).__name__}: {str(error)[:200]}"


# --- connecting -------------------------------------------------------------------------------


class _Refused(httpcore.ConnectError):
    """The name leads to an address that is not connected to."""


class _Transport(httpx.BaseTransport):
    """httpx over connections that go to checked addresses and end at `deadline`."""

    def __init__(self, rules: WebSettings, deadline: float):
        backend = _CheckedNetwork(rules, deadline)
        context = httpx.create_ssl_context()
        self._pool = httpcore.ConnectionPool(ssl_context=context, network_backend=backend)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        asked = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
        )
        try:
            response = self._pool.handle_request(asked)
        except Exception as error:
            raise _translated(error) from error
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=dict(response.extensions),
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response):
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_stream()
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise _translated(error) from error

    def close(self) -> None:
        self._response.close()


def _translated(error: Exception) -> Exception:
    """httpcore's error as the one httpx has for it: those are what this module's callers of httpx catch."""
    if isinstance(error, httpcore.TimeoutException):
        return httpx.ReadTimeout(str(error))
    if isinstance(error, httpcore.ConnectError):
        return httpx.ConnectError(str(error))
    if isinstance(error, httpcore.NetworkError):
        return httpx.ReadError(str(error))
    if isinstance(error, httpcore.ProtocolError | httpcore.UnsupportedProtocol):
        return httpx.RemoteProtocolError(str(error))
    return error


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to names by addresses that were checked, and to nothing else."""

    def __init__(self, rules: WebSettings, deadline: float):
        self._rules, self._deadline = rules, deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        last: Exception = httpcore.ConnectError("the name has no address")
        for address in self._addresses(host, port):
            try:
                stream = self._plain.connect_tcp(address, port, left(self._deadline), local_address, socket_options)
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        raise _Refused("a socket on this machine")

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, left(self._deadline)))

    def _addresses(self, host: str, port: int) -> list[str]:
        """Every address of `host`. One that is refused refuses all: which one is taken must not be left to chance."""
        found = _within(left(self._deadline), lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        for address in addresses:
            if why := refused(address, private=self._rules.private):
                raise _Refused(why)
        return addresses


class _TimedStream(httpcore.NetworkStream):
    """A connection on which everything ends at the deadline: a server that sends a byte now and then gains no time."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float):
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, left(self._deadline))
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def left(deadline: float) -> float:
    """Seconds until `deadline`; raises ReadTimeout when none are."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout("the time is up")
    return seconds


def _within(seconds: float, ask: Callable[[], Any]) -> Any:
    """What `ask` returns, or ReadTimeout after `seconds`: looking a name up knows no limit of time itself."""
    answer: list[Any] = []

    def run() -> None:
        try:
            answer.append(ask())
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answer:
        raise httpcore.ReadTimeout("looking the name up took too long")
    if isinstance(answer[0], OSError | UnicodeError):
        raise httpcore.ConnectError("the name is not known") from answer[0]
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]
