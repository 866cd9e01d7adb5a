"""Archives that office files and books are: opened within limits, with a reason where they cannot be.

Knows nothing of what the parts inside mean.
"""

from __future__ import annotations

import io
import zipfile

from factform.errors import DocumentError

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
TEXT_PARTS = (".xml", ".rels", ".xhtml", ".html", ".htm", ".opf", ".ncx")
MOST_PARTS = 20_000


def check_package(data: bytes, kind: str, *, max_bytes: int, needs: str = "[Content_Types].xml") -> frozenset[str]:
    """Names of the parts of a `kind` file; its text parts may unpack to `max_bytes` at most.

    Raises DocumentError where it is no such archive, is cut short, encrypted, or larger than that.
    """
    article = "an" if kind[0] in "EX" else "a"
    if data.startswith(OLE):
        raise DocumentError(
            f"an encrypted {kind} or an old binary office file: remove the password or save it in the present format"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            members = package.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise DocumentError(f"not {article} {kind} file, or a truncated one: {error}") from error
    names = frozenset(m.filename for m in members)
    unpacked = sum(m.file_size for m in members if m.filename.lower().endswith(TEXT_PARTS))
    if needs not in names:
        raise DocumentError(f"not {article} {kind} file: a ZIP archive without {needs}")
    if any(m.flag_bits & 1 for m in members):
        raise DocumentError(f"encrypted {kind}: remove the password and add the file again")
    if unpacked > max_bytes:
        raise DocumentError(f"too large: the {kind} unpacks to {unpacked:,} bytes of XML, the limit is {max_bytes:,}")
    if len(members) > MOST_PARTS:
        raise DocumentError(f"too large: the {kind} holds {len(members):,} parts, the limit is {MOST_PARTS:,}")
    return names
