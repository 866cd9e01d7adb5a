"""EML and MSG: fields, the text in the form that says more, attachments one level deep."""

from __future__ import annotations

import struct
from email.message import EmailMessage
from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import openpyxl
import pytest
from compound import Tree, compound
from hypothesis import given, settings
from hypothesis import strategies as st
from parse_checks import PROSE, check_invariants, parsed, pdf, places, refused, saved, shown, text_of

from factform.errors import DocumentError
from factform.facts.parse import media_type, parse
from factform.facts.parse_mail import read_eml
from factform.records import Source

FROM = "From: Tenant <tenant@example.com>\n"


def mail(text: str = "The lease ends in June.\n\nPlease confirm.") -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Lease of unit 7: Kündigung"
    message["From"] = "Tenant <tenant@example.com>"
    message["To"] = "office@example.com"
    message["Date"] = "Mon, 03 Mar 2025 09:00:00 +0100"
    message.set_content(text)
    return message


def test_mail_by_its_fields_and_text() -> None:
    p = parsed(mail().as_bytes(), "a.eml")
    assert p.title == "Lease of unit 7: Kündigung"
    assert shown(p) == [
        ("heading", "Lease of unit 7: Kündigung"),
        ("paragraph", FROM + "To: office@example.com\nDate: Mon, 03 Mar 2025 09:00:00 +0100"),
        ("paragraph", "The lease ends in June."),
        ("paragraph", "Please confirm."),
    ]


def test_the_form_of_the_text_that_says_more_is_read() -> None:
    html = "<table><tr><th>Item</th><th>EUR</th></tr><tr><td>Rent</td><td>900</td></tr></table><p>" + PROSE
    stub = mail("This mail has another form.")
    stub.add_alternative(html, subtype="html")
    assert ("table", "| Item | EUR |\n| Rent | 900 |") in shown(parsed(stub.as_bytes(), "a.eml"))
    full = mail(PROSE)
    full.add_alternative(f"<p>{PROSE}", subtype="html")
    assert shown(parsed(full.as_bytes(), "a.eml"))[-1] == ("paragraph", PROSE.strip())


def test_attachments_are_listed_and_known_ones_read_under_their_name() -> None:
    book = openpyxl.Workbook()
    book.active.title = "Costs"
    book.active.append(["Item", "EUR"])
    book.active.append(["Rent", 900])
    message = mail()
    message.add_attachment(saved(book), maintype="application", subtype="octet-stream", filename="costs.xlsx")
    message.add_attachment(pdf(text_of("The roof leaks.")), maintype="application", subtype="pdf", filename="roof.pdf")
    message.add_attachment(b"\x00\x01", maintype="application", subtype="octet-stream", filename="photo.raw")
    message.add_attachment(b"broken", maintype="application", subtype="pdf", filename="bad.pdf")
    p = parsed(message.as_bytes(), "a.eml")
    assert "Attachments: costs.xlsx, roof.pdf, photo.raw, bad.pdf" in p.text
    assert "| Rent | 900 |" in p.text
    assert "The roof leaks." in p.text
    assert "(not read: not a PDF file: no %PDF- at its start)" in p.text
    assert [name for name, _ in places(p, "attachment")] == ["costs.xlsx", "roof.pdf", "bad.pdf"]
    assert [number for number, _ in places(p, "row")] == [1, 2]
    assert places(p, "page") == [(1, "The roof leaks.")]
    assert places(p, "glyphs") == []


def test_an_attached_mail_is_read_and_what_hangs_on_it_is_listed() -> None:
    inner = mail("Inner words.")
    inner.add_attachment(b"deep words", maintype="text", subtype="plain", filename="deep.txt")
    outer = mail("Outer words.")
    outer.add_attachment(inner, filename="forwarded.eml")
    p = parsed(outer.as_bytes(), "a.eml")
    assert "Inner words." in p.text
    assert "Attachments: deep.txt" in p.text
    assert "deep words" not in p.text


def test_other_charsets_and_unknown_ones() -> None:
    raw = b"Subject: x\nContent-Type: text/plain; charset=%s\n\nStra\xdfe\n"
    assert "Straße" in parsed(raw % b"iso-8859-1", "a.eml").text
    assert "Stra" in parsed(raw % b"no-such-charset", "a.eml").text


def many(kind: str, *parts: MIMEBase) -> MIMEMultipart:
    message = MIMEMultipart(kind)
    for part in parts:
        message.attach(part)
    return message


def named(part: MIMEBase, name: str, disposition: str = "attachment") -> MIMEBase:
    part.add_header("Content-Disposition", disposition, filename=name)
    return part


def sent(message: MIMEBase) -> bytes:
    message["Subject"] = "x"
    return message.as_bytes()


def costs() -> MIMEBase:
    return named(MIMEText("Item,EUR\nRent,900\n", "csv"), "costs.csv")


def image() -> MIMEBase:
    return MIMEApplication(b"\x89PNG")


HTML = "<html><body><p>See the costs that hang on this mail.</p></body></html>"


def test_what_is_attached_within_a_form_of_the_text_is_read() -> None:
    message = many("alternative", MIMEText("See the costs."), many("mixed", MIMEText(HTML, "html"), costs()))
    p = parsed(sent(message), "a.eml")
    assert "Attachments: costs.csv" in p.text
    assert "| Rent | 900 |" in p.text
    assert "hang on this mail" in p.text
    assert "See the costs.\n" not in p.text


def test_what_is_attached_to_a_signed_mail_is_read() -> None:
    signature = MIMEApplication(b"sig", "pkcs7-signature")
    p = parsed(sent(many("signed", many("mixed", MIMEText("Signed words."), costs()), signature)), "a.eml")
    assert "Attachments: costs.csv, attachment 2" in p.text
    assert ("paragraph", "Signed words.") in shown(p)
    assert [name for name, _ in places(p, "attachment")] == ["costs.csv"]


def test_text_around_a_picture_is_text_and_a_named_one_below_it_is_a_file() -> None:
    notes = named(MIMEText("Of the notes."), "notes.txt", "inline")
    p = parsed(sent(many("mixed", MIMEText("Above."), image(), MIMEText("Below."), notes)), "a.eml")
    assert [text for _, text in shown(p)] == [
        "x",
        "Attachments: attachment 1, notes.txt",
        "Above.",
        "Below.",
        "Attachment: notes.txt",
        "Of the notes.",
    ]


def test_pictures_of_a_page_are_listed_and_its_frames_are_not_its_text() -> None:
    related = many("related", MIMEText(HTML, "html"), MIMEText("<p>A frame.</p>", "html"), many("mixed", image()))
    p = parsed(sent(many("mixed", many("alternative", MIMEText("Short."), related), MIMEText("A footer."))), "a.eml")
    assert [text for _, text in shown(p)] == [
        "x",
        "Attachments: attachment 1, attachment 2",
        "See the costs that hang on this mail.",
        "A footer.",
        "Attachment: attachment 1",
        "A frame.",
    ]


def test_attachments_without_a_name_are_read_by_their_type() -> None:
    costs = MIMEText("Item,EUR\nRent,900\n", "csv")
    report = named(MIMEApplication(pdf(text_of("The roof leaks.")), "pdf"), "report")
    p = parsed(sent(many("mixed", MIMEText("Words."), costs, report)), "a.eml")
    assert [name for name, _ in places(p, "attachment")] == ["attachment 1", "report"]
    assert "| Rent | 900 |" in p.text
    assert "The roof leaks." in p.text


def test_a_mail_that_is_nothing_but_a_file_is_read() -> None:
    assert "The roof leaks." in parsed(sent(MIMEApplication(pdf(text_of("The roof leaks.")), "pdf")), "a.eml").text


RAW = b"Subject: x\nMIME-Version: 1.0\n%s\n\n"


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"X-None: 1", "Straße".encode()),
        (b"X-None: 1", "Straße".encode("cp1252")),
        (b"Content-Type: text/plain; charset=iso-8859-1", "Straße €".encode()),
        (b"Content-Type: text/plain; charset=iso-8859-1", "Straße €".encode("cp1252")),
        (b"Content-Type: text/plain; charset=us-ascii", "Straße".encode("cp1252")),
        (b"Content-Type: text/plain; charset=utf-8", "Straße".encode("cp1252")),
        (b"Content-Type: text/plain; charset=gb2312", "镕基".encode("gb18030")),
        (b"Content-Type: text/plain; charset=iso-2022-jp", "日本".encode("iso2022_jp")),
        (b"Content-Type: text/plain; charset=no-such", "Straße".encode()),
        (b"Content-Type: text/plain; charset=idna", "Straße".encode()),
        (b"Content-Type: text/html", "<meta charset=utf-8><p>Straße</p>".encode()),
        (b"Content-Type: text/html", "<meta charset=cp1251><p>Привет</p>".encode("cp1251")),
    ],
)
def test_the_text_is_decoded_by_what_its_bytes_are(header: bytes, body: bytes) -> None:
    text = parsed(RAW % header + body, "a.eml").text
    assert "\ufffd" not in text
    assert any(word in text.split() for word in ("Straße", "镕基", "日本", "Привет"))
    assert ("€" in text) == ("€".encode() in body or b"\x80" in body)


def test_bytes_that_are_no_character_are_told_of() -> None:
    whole = read_eml(RAW % b"X-None: 1" + "Größe".encode()).layout
    cut = read_eml(RAW % b"X-None: 1" + "Größe Ä".encode()[:-1]).layout
    assert (whole.note, cut.note) == (None, "1 character(s) of the mail's text could not be decoded")
    assert "Größe \ufffd" in cut.text


def test_parts_within_parts_without_end_are_refused_or_read() -> None:
    raw = b"Subject: parts\n" + b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (i, i) for i in range(3000)
    )
    try:
        check_invariants(parse(Source("d", raw + b"\nthe bottom\n", "a.eml")))
    except DocumentError as error:
        assert "damaged mail" in str(error)  # noqa: PT017


def test_what_is_no_mail_is_refused() -> None:
    assert "not a mail" in refused(b"just words without a field", "a.eml")
    assert "not an MSG file: no compound file" in refused(b"words", "a.msg")
    assert "without the properties" in refused(compound({"Other": b"x" * 10}), "a.msg")
    assert "damaged MSG" in refused(msg()[:700], "a.msg")


def test_mails_are_known_by_their_content() -> None:
    assert media_type(Source("d", mail().as_bytes(), "upload")) == "eml"
    assert media_type(Source("d", b"Note: a line\nand words\n", "upload")) == "text"
    assert media_type(Source("d", msg(), "upload")) == "msg"


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_after_a_field_are_read_or_refused(data: bytes) -> None:
    try:
        check_invariants(parse(Source("d", b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n" + data, "a.eml")))
    except DocumentError as error:
        assert str(error)  # noqa: PT017


# --- MSG ------------------------------------------------------------------------------------


def properties(header: int, *fixed: tuple[int, bytes]) -> bytes:
    return bytes(header) + b"".join(struct.pack("<II", tag, 6) + value.ljust(8, b"\0") for tag, value in fixed)


def wide(**texts: str) -> Tree:
    return {f"__substg1.0_{tag.lstrip('_')}001F": text.encode("utf-16-le") for tag, text in texts.items()}


def msg(**more: object) -> bytes:
    when = (1_741_000_000 + 11_644_473_600) * 10_000_000
    tree: Tree = {"__properties_version1.0": properties(32, (0x00390040, struct.pack("<Q", when)))}
    tree |= wide(
        _0037="Lease of unit 7", _0C1A="Tenant", _5D01="tenant@example.com", _0E04="office", _1000="Ends in June.\r\n"
    )
    return compound(tree | more)  # type: ignore[operator]


def test_msg_by_its_properties() -> None:
    attachment: Tree = {"__properties_version1.0": properties(8), "__substg1.0_37010102": b"Item,EUR\nRent,900\n" * 300}
    attachment |= wide(_3707="costs.csv")
    p = parsed(msg(**{"__attach_version1.0_#00000000": attachment}), "a.msg")
    assert shown(p)[:3] == [
        ("heading", "Lease of unit 7"),
        ("paragraph", FROM + "To: office\nDate: 2025-03-03 11:06 UTC\nAttachments: costs.csv"),
        ("paragraph", "Ends in June."),
    ]
    assert len(places(p, "row")) == 600


def test_msg_in_a_code_page_and_as_html() -> None:
    narrow: Tree = {
        "__properties_version1.0": properties(32, (0x3FFD0003, struct.pack("<I", 1251))),
        "__substg1.0_0037001E": "Привет".encode("cp1251"),
        "__substg1.0_10130102": "<p>Текст</p>".encode(),
    }
    p = parsed(compound(narrow), "a.msg")
    assert (p.title, shown(p)[-1]) == ("Привет", ("paragraph", "Текст"))


def test_msg_with_rich_text_only_says_so() -> None:
    only: Tree = {"__properties_version1.0": properties(32), "__substg1.0_10090102": b"compressed"}
    assert "rich text" in refused(compound(only), "a.msg")


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_msg_files_are_read_or_refused(data: st.DataObject) -> None:
    bad = bytearray(msg())
    for _ in range(data.draw(st.integers(1, 20))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_invariants(parse(Source("d", bytes(bad), "a.msg")))
    except DocumentError as error:
        assert str(error)  # noqa: PT017


def test_more_attachments_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factform.facts.parse_mail.MOST_ATTACHMENTS", 1)
    message = mail()
    for name in ("a.txt", "b.txt"):
        message.add_attachment(b"x", maintype="text", subtype="plain", filename=name)
    assert "2 attachments" in refused(message.as_bytes(), "a.eml")


def test_what_could_not_be_read_is_told_with_the_document() -> None:
    raw = b"Subject: Lease\nFrom: a@example.com\nContent-Type: text/plain\n\nDue on \x81 July.\n"
    p = parsed(raw, "a.eml")
    assert "�" in p.text
    assert p.note
    assert parsed(mail().as_bytes(), "a.eml").note is None
