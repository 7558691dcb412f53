"""Writing and checking the report's XML: characters that XML cannot hold never reach it, and
nothing unchecked leaves."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import get_args

from lxml import etree

from dmarc_milter.core.report.aggregate import Feedback, Format, Node, document

NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"
MAX_TEXT = 1000
"""Characters of one element's text; all of ours are shorter, stored facts are bounded too."""


def _schema(form: Format) -> etree.XMLSchema:
    text = files("dmarc_milter.core.report").joinpath("schema", f"{form}.xsd").read_bytes()
    return etree.XMLSchema(etree.fromstring(text))


_SCHEMAS: dict[Format, etree.XMLSchema] = {form: _schema(form) for form in get_args(Format)}
"""Read while the module is imported, which only one thread does: of two that read their first
schema at once libxml2 leaves a process that can read none."""


class InvalidReport(Exception):
    """The document does not satisfy its schema: a bug of ours, so the report is kept and shown,
    never sent."""


def render(feedback: Feedback, form: Format) -> bytes:
    """The checked XML document, UTF-8. RFC 9990's has its namespace, RFC 7489's none (RFC 9990 3).
    Raises InvalidReport."""
    root = _element(document(feedback, form), f"{{{NAMESPACE}}}" if form == "rfc9990" else "")
    check(root, form)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)


def compressed(xml: bytes) -> bytes:
    """gzip without time or name inside: the same report is the same bytes at every try (RFC 9990
    3.5.2)."""
    return gzip.compress(xml, 9, mtime=0)


def check(root: etree._Element, form: Format) -> None:
    """Raises InvalidReport."""
    schema = _SCHEMAS[form]
    if not schema.validate(root):
        raise InvalidReport(str(schema.error_log))


def legal(text: str) -> str:
    """`text` with every character that XML 1.0 cannot hold (2.2 Char) replaced by U+FFFD, and cut
    at MAX_TEXT."""
    return "".join(
        char if _is_char(ord(char)) else "\N{REPLACEMENT CHARACTER}" for char in text[:MAX_TEXT]
    )


def _is_char(point: int) -> bool:
    return (
        point in (0x9, 0xA, 0xD)
        or 0x20 <= point <= 0xD7FF
        or 0xE000 <= point <= 0xFFFD
        or 0x10000 <= point <= 0x10FFFF
    )


def _element(node: Node, prefix: str) -> etree._Element:
    """The whole tree; its root is `feedback`."""
    name, content = node
    element = etree.fromstring(f'<{name} xmlns="{NAMESPACE}"/>' if prefix else f"<{name}/>")
    if not isinstance(content, str):
        _fill(element, content, prefix)
    return element


def _fill(parent: etree._Element, nodes: list[Node], prefix: str) -> None:
    for name, content in nodes:
        child = etree.SubElement(parent, prefix + name)
        if isinstance(content, str):
            child.text = legal(content) if content else None
        else:
            _fill(child, content, prefix)
