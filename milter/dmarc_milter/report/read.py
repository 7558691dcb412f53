"""Reading aggregate reports, ours and other people's: XML, gzip, zip or a whole mail, of either RFC, bounded against bombs."""

from __future__ import annotations

import email
import email.policy
import io
import zipfile
import zlib
from collections.abc import Iterator
from email.message import Message

import msgspec
from lxml import etree

MAX_FILE = 50 << 20
"""Octets of a file as it comes."""
MAX_XML = 64 << 20
"""Octets of one document unpacked."""
MAX_DOCUMENTS = 20
"""Documents of one file."""
MAX_RECORDS = 200_000
BLANK = b"\xef\xbb\xbf \t\r\n"
"""What some put before the document."""
SIGNS = (b"PK\x03\x04", b"\x1f\x8b")


class Unreadable(ValueError):
    """Not a report, or too large. `str()` is one line."""


class ReadRecord(msgspec.Struct, frozen=True):
    """One record. Words are as the report has them, unchecked."""

    source_ip: str
    count: int
    disposition: str = ""
    dkim: str = ""
    spf: str = ""
    reasons: tuple[dict[str, str], ...] = ()
    header_from: str = ""
    envelope_from: str = ""
    envelope_to: str = ""
    auth_dkim: tuple[dict[str, str], ...] = ()
    auth_spf: tuple[dict[str, str], ...] = ()


class ReadReport(msgspec.Struct, frozen=True):
    """One report. `begin` and `end` are seconds since 1970; `policy` is policy_published, tag by tag."""

    report_id: str
    org_name: str
    email: str
    begin: int
    end: int
    policy: dict[str, str]
    records: tuple[ReadRecord, ...]
    errors: tuple[str, ...] = ()
    generator: str = ""
    extra_contact_info: str = ""

    @property
    def messages(self) -> int:
        return sum(each.count for each in self.records)


def read(data: bytes) -> list[ReadReport]:
    """Every report in a file. Raises Unreadable, also when there is none."""
    if len(data) > MAX_FILE:
        raise Unreadable(f"more than {MAX_FILE >> 20} MiB")
    found = [parse(each) for _, each in zip(range(MAX_DOCUMENTS), documents(data), strict=False)]
    if not found:
        raise Unreadable("no aggregate report in it")
    return found


def documents(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The XML documents inside, unpacked. Raises Unreadable."""
    if data.startswith(b"PK\x03\x04"):
        yield from _from_zip(data)
    elif data.startswith(b"\x1f\x8b"):
        yield _from_gzip(data)
    elif data.lstrip(BLANK).startswith(b"<"):
        yield data
    elif depth == 0:
        for part in _attachments(data):
            yield from documents(part, 1)


def _from_gzip(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(data, MAX_XML)
    except zlib.error as error:
        raise Unreadable(f"damaged gzip: {error}") from None
    if unpacker.unconsumed_tail:
        raise Unreadable(f"more than {MAX_XML >> 20} MiB unpacked")
    return text


def _from_zip(data: bytes) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist()[:MAX_DOCUMENTS]:
                if info.is_dir() or info.flag_bits & 1:
                    continue
                with archive.open(info) as member:
                    text = member.read(MAX_XML + 1)
                if len(text) > MAX_XML:
                    raise Unreadable(f"more than {MAX_XML >> 20} MiB unpacked")
                yield text
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"damaged zip: {error}") from None


def _attachments(data: bytes) -> Iterator[bytes]:
    """The decoded parts of a mail that look like a report."""
    try:
        mail: Message = email.message_from_bytes(data, policy=email.policy.compat32)
        parts = [part for _, part in zip(range(100), mail.walk(), strict=False)]
        payloads = [part.get_payload(decode=True) for part in parts if not part.is_multipart()]
    except Exception as error:  # the library has raised many kinds for damaged mail
        raise Unreadable(f"not a mail that can be read: {type(error).__name__}") from None
    for payload in payloads:
        if isinstance(payload, bytes) and (payload.startswith(SIGNS) or payload.lstrip().startswith(b"<?xml")):
            yield payload


def parse(xml: bytes) -> ReadReport:
    """One document; entities and external things are never followed. Raises Unreadable."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(xml.lstrip(BLANK), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Unreadable(f"not well-formed XML: {str(error)[:200]}") from None
    if _name(root) != "feedback":
        raise Unreadable(f"an XML document of another kind: {_name(root)[:60]}")
    metadata = _child(root, "report_metadata")
    dates = _child(metadata, "date_range")
    records = [each for each in root if _name(each) == "record"]
    if len(records) > MAX_RECORDS:
        raise Unreadable(f"more than {MAX_RECORDS} records")
    return ReadReport(
        report_id=_text(metadata, "report_id"),
        org_name=_text(metadata, "org_name"),
        email=_text(metadata, "email"),
        begin=_number(_text(dates, "begin")),
        end=_number(_text(dates, "end")),
        policy=_plain(_child(root, "policy_published")),
        records=tuple(map(_record, records)),
        errors=tuple((each.text or "").strip() for each in _all(metadata, "error")),
        generator=_text(metadata, "generator"),
        extra_contact_info=_text(metadata, "extra_contact_info"),
    )


def _record(record: etree._Element) -> ReadRecord:
    row, names, results = (_child(record, each) for each in ("row", "identifiers", "auth_results"))
    evaluated = _child(row, "policy_evaluated")
    return ReadRecord(
        source_ip=_text(row, "source_ip"),
        count=_number(_text(row, "count")),
        disposition=_text(evaluated, "disposition"),
        dkim=_text(evaluated, "dkim"),
        spf=_text(evaluated, "spf"),
        reasons=tuple(map(_plain, _all(evaluated, "reason"))),
        header_from=_text(names, "header_from"),
        envelope_from=_text(names, "envelope_from"),
        envelope_to=_text(names, "envelope_to"),
        auth_dkim=tuple(map(_plain, _all(results, "dkim"))),
        auth_spf=tuple(map(_plain, _all(results, "spf"))),
    )


def _name(element: etree._Element) -> str:
    """Without namespace; "" for what is no element."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _all(parent: etree._Element | None, name: str) -> list[etree._Element]:
    return [each for each in parent if _name(each) == name] if parent is not None else []


def _child(parent: etree._Element | None, name: str) -> etree._Element | None:
    return next(iter(_all(parent, name)), None)


def _text(parent: etree._Element | None, name: str) -> str:
    child = _child(parent, name)
    return (child.text or "").strip() if child is not None else ""


def _plain(element: etree._Element | None) -> dict[str, str]:
    """The texts of the children by name."""
    return {name: (each.text or "").strip() for each in element if (name := _name(each))} if element is not None else {}


def _number(text: str) -> int:
    """0 for what is no number of at most 15 digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else 0
