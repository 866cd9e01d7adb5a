"""EPUB into the text of its chapters in reading order, each read as the HTML it is.

Knows nothing of chunks. The package says what is read and in which order; its table of contents names the chapters.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace
from html import unescape
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from lxml import etree

from factform.errors import DocumentError
from factform.facts.layout import Layout, joined, placed, squeeze, trimmed
from factform.facts.package import check_package
from factform.facts.parse_html import read_html
from factform.records import Block, Place

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_TYPE = "{http://www.idpf.org/2007/ops}type"
_TAG = re.compile(r"<([A-Za-z][^\s<>/]*+)[^<>]*+>")
_ID = re.compile(r"""\s(?:xml:)?(id|name)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_MARKS = 0x100000
"""First of the 65,534 private characters that mark anchors while a page is read."""
_MOST_MARKS = 65_534
_Entry = tuple[str, str]
"""Where in its page a line of the table of contents leads ("" for its top), and what it says."""


def read_epub(data: bytes, max_bytes: int, decode: Callable[[bytes], str]) -> Layout:
    """Layout of an EPUB with a place for each chapter. `decode` makes text of a chapter's bytes.

    What the package marks as not linear (cover pages, pop-up notes) follows in its place in the spine; the table of
    contents is left out. A chapter is named by the table of contents, which may cut a page into several, else by its
    first heading.
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
        chapters = [_chapter(decode(part(name)), titles.get(name, [])) for name in spine]
    found = next(iter(package.iter("{http://purl.org/dc/elements/1.1/}title")), None)
    return joined(chapters, squeeze("".join(found.itertext())) or None if found is not None else None)


def _chapter(text: str, entries: list[_Entry]) -> Layout:
    layout = read_html(text)
    if not layout.blocks:
        return layout
    fragments = frozenset(fragment for fragment, _ in entries if fragment)
    anchors = _anchors(text, layout, fragments)
    if entries and fragments <= anchors.keys():
        return replace(layout, places=(*layout.places, *_parts(layout, anchors, entries)))
    if len(entries) > 1:  # it is not known where one ends and the next begins
        return layout
    first = next((b for b in layout.blocks if b.kind == "heading"), None)
    stated = entries[0][1] if entries else None
    name = stated or (squeeze(layout.text[first.start : first.end]) if first else None) or layout.title
    return placed(layout, "chapter", name) if name else layout


def _parts(layout: Layout, anchors: Mapping[str, int], entries: list[_Entry]) -> list[Place]:
    """A place from each entry's anchor to the next one. What stands above the first belongs to an earlier page's."""
    starts = sorted(((anchors.get(fragment, 0), label) for fragment, label in entries), key=lambda found: found[0])
    spans = (
        (*trimmed(layout.text, start, end), label)
        for (start, label), (end, _) in pairwise([*starts, (len(layout.text), "")])
    )
    return [Place(start, end, "chapter", label) for start, end, label in spans if start < end]


def _anchors(text: str, layout: Layout, fragments: frozenset[str]) -> dict[str, int]:
    """Where the elements with these ids begin in the page's text; empty if that cannot be told.

    The page is read once more with a mark in each of them: how much text stands before a mark says where it is.
    """
    marked, marks = _marked(text, fragments)
    if not marks:
        return {}
    letters: list[str] = []
    before: dict[str, int] = {}
    for c in read_html(marked).text:
        if c in marks:
            before[marks[c]] = len(letters)
        elif not c.isspace():
            letters.append(c)
    at = [i for i, c in enumerate(layout.text) if not c.isspace()]
    if letters != [layout.text[i] for i in at]:  # a mark changed how the page is read, in a table for one
        return {}
    found = {fragment: at[count] if count < len(at) else len(layout.text) for fragment, count in before.items()}
    headings = [b for b in layout.blocks if b.kind == "heading"]
    return {fragment: _before_heading(headings, start) for fragment, start in found.items()}


def _before_heading(headings: list[Block], at: int) -> int:
    """The beginning of the heading that `at` lies in: its number may stand before the anchor."""
    last = bisect_right(headings, at, key=lambda b: b.start) - 1
    return headings[last].start if last >= 0 and at < headings[last].end else at


def _marked(text: str, fragments: frozenset[str]) -> tuple[str, dict[str, str]]:
    """The page with a private character after the tag of each of these ids, and which is whose."""
    parts: list[str] = []
    marks: dict[str, str] = {}
    left = set(fragments)
    at = 0
    for tag in _TAG.finditer(text) if left else ():
        for kind, *quoted in _ID.findall(tag[0]):
            name = unescape("".join(quoted))
            if name in left and (kind == "id" or tag[1] == "a") and len(marks) < _MOST_MARKS:
                left.remove(name)
                mark = chr(_MARKS + len(marks))
                marks[mark] = name
                parts += [text[at : tag.end()], mark]
                at = tag.end()
    return "".join(parts) + text[at:], marks if marks.keys().isdisjoint(text) else {}


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
) -> dict[str, list[_Entry]]:
    """Chapters by page, from the book's table of contents: EPUB 3's, else EPUB 2's."""
    shown: list[tuple[str, str, str]] = []
    older: list[tuple[str, str, str]] = []
    for item in items.values():
        name = _resolved(folder, item.get("href") or "")
        if name not in names:
            continue
        base = posixpath.dirname(name)
        if "nav" in (item.get("properties") or "").split():
            shown += [(base, href, label) for href, label in _nav_links(_xml(part(name), name))]
        elif item.get("media-type") == "application/x-dtbncx+xml":
            older += [(base, href, label) for href, label in _ncx_links(_xml(part(name), name))]
    titles: dict[str, list[_Entry]] = {}
    for base, href, label in shown or older:
        entry = (unquote(href.partition("#")[2]), label)
        titles.setdefault(_resolved(base, href), []).append(entry)
    return titles


def _nav_links(page: Any) -> list[tuple[str, str]]:
    """Links of a navigation page, but for its lists of pages and landmarks."""
    other = {a for nav in page.iter("{*}nav") if "toc" not in nav.get(_TYPE, "toc").split() for a in nav.iter("{*}a")}
    links = ((a.get("href"), squeeze("".join(a.itertext()))) for a in page.iter("{*}a") if a not in other)
    return [(href, label) for href, label in links if href and label]


def _ncx_links(contents: Any) -> list[tuple[str, str]]:
    links = []
    for point in contents.iter("{*}navPoint"):
        content, label = point.find("{*}content"), point.find("{*}navLabel")
        if content is not None and label is not None:
            links.append((content.get("src"), squeeze("".join(label.itertext()))))
    return [(href, label) for href, label in links if href and label]
