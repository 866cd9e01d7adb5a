"""EPUB into the text of its chapters in reading order, each read as the HTML it is.

Knows nothing of chunks. The package says what is read and in which order; its table of contents names the chapters.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from lxml import etree

from factform.errors import DocumentError
from factform.facts.layout import Layout, joined, placed, squeeze
from factform.facts.package import check_package
from factform.facts.parse_html import read_html

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")


def read_epub(data: bytes, max_bytes: int, decode: Callable[[bytes], str]) -> Layout:
    """Layout of an EPUB with a place for each chapter. `decode` makes text of a chapter's bytes.

    What the package marks as not linear (cover pages, pop-up notes) follows in its place in the spine; the table of
    contents is left out. A chapter is named by the table of contents, else by its first heading.
    """
    names = check_package(data, "EPUB", max_bytes=max_bytes, needs=_CONTAINER)
    with zipfile.ZipFile(io.BytesIO(data)) as book:

        def part(name: str) -> bytes:
            try:
                return book.read(name)
            except (KeyError, zipfile.BadZipFile, OSError, NotImplementedError, EOFError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
                raise DocumentError(f"damaged EPUB file: {name} cannot be read ({error})") from error

        package_name = _rootfile(part(_CONTAINER))
        package = _xml(part(package_name), package_name)
        folder = posixpath.dirname(package_name)
        items = {i.get("id"): i for i in package.iter("{*}manifest") for i in i.iter("{*}item")}
        spine = _spine(package, items, folder)
        if not spine:
            raise DocumentError("damaged EPUB file: its package names nothing to read")
        locked = _locked(part(_ENCRYPTION)) if _ENCRYPTION in names else frozenset()
        if any(name in locked for name in spine):
            raise DocumentError("encrypted EPUB: its chapters are under copy protection; add a copy without it")
        titles = _titles(package, items, folder, part, names)
        chapters = [_chapter(decode(part(name)), titles.get(name)) for name in spine]
    found = next(iter(package.iter("{http://purl.org/dc/elements/1.1/}title")), None)
    return joined(chapters, squeeze("".join(found.itertext())) or None if found is not None else None)


def _chapter(text: str, title: str | None) -> Layout:
    layout = read_html(text)
    first = next((b for b in layout.blocks if b.kind == "heading"), None)
    name = title or (squeeze(layout.text[first.start : first.end]) if first else None) or layout.title
    return placed(layout, "chapter", name) if name and layout.blocks else layout


def _rootfile(container: bytes) -> str:
    for found in _xml(container, _CONTAINER).iter("{*}rootfile"):
        if name := found.get("full-path"):
            return str(name)
    raise DocumentError("damaged EPUB file: META-INF/container.xml names no package")


def _xml(data: bytes, name: str) -> Any:
    try:
        return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))
    except (etree.LxmlError, ValueError) as error:
        raise DocumentError(f"damaged EPUB file: {name} is not XML ({error})") from error


def _resolved(folder: str, href: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(href.split("#")[0])))


def _spine(package: Any, items: dict[Any, Any], folder: str) -> list[str]:
    """Names of the pages to be read, in order, each once."""
    order = [items.get(ref.get("idref")) for spine in package.iter("{*}spine") for ref in spine.iter("{*}itemref")]
    shown = [i for i in order if i is not None and i.get("href") and i.get("media-type") in _PAGES]
    pages = [i for i in shown if "nav" not in (i.get("properties") or "").split()] or shown
    return list(dict.fromkeys(_resolved(folder, item.get("href")) for item in pages))


def _locked(encryption: bytes) -> frozenset[str]:
    """What is encrypted. Fonts commonly are, which is nothing to a reader of the text."""
    found = _xml(encryption, _ENCRYPTION).iter("{*}CipherReference")
    return frozenset(posixpath.normpath(unquote(r.get("URI") or "")) for r in found)


def _titles(
    package: Any, items: dict[Any, Any], folder: str, part: Callable[[str], bytes], names: frozenset[str]
) -> dict[str, str]:
    """Names of the chapters by page, from the book's table of contents: EPUB 3's, else EPUB 2's."""
    titles: dict[str, str] = {}
    for item in items.values():
        name = _resolved(folder, item.get("href") or "")
        if name not in names:
            continue
        base = posixpath.dirname(name)
        if "nav" in (item.get("properties") or "").split():
            links = [(a.get("href"), "".join(a.itertext())) for a in _xml(part(name), name).iter("{*}a")]
        elif item.get("media-type") == "application/x-dtbncx+xml":
            links = []
            for point in _xml(part(name), name).iter("{*}navPoint"):
                content, label = point.find("{*}content"), point.find("{*}navLabel")
                if content is not None and label is not None:
                    links.append((content.get("src"), "".join(label.itertext())))
        else:
            continue
        for href, label in links:
            if href and squeeze(label):
                titles.setdefault(_resolved(base, href), squeeze(label))
    return titles
