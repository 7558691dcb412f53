"""A strict reader of Authentication-Results, by the grammar of RFC 8601 2.2 alone and independent
of the package under test.

    field = parse(b" mx.example.com; spf=pass smtp.mailfrom=a.example",
    name=b"Authentication-Results")
    field.authserv_id, field.results[0].method, field.one("dmarc").properties["header.from"]

Anything that the grammar does not allow, any line over 998 octets, and any octet that is neither
printable ASCII, a fold nor (with `smtputf8`) UTF-8 raises NotStrict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

WSP = " \t"
ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
# RFC 2045 5.1: token = 1*<any CHAR except SPACE, CTLs, or tspecials>
TOKEN = re.compile(r"[!#$%&'*+.0-9A-Z^_`a-z{|}~\x80-\U0010ffff-]+")
KEYWORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
DOT_ATOM = rf"{ATEXT}+(?:\.{ATEXT}+)*"
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
# pvalue = value / [ [ local-part ] "@" ] domain-name
ADDRESS = re.compile(rf"(?:{DOT_ATOM})?@{LABEL}(?:\.{LABEL})*")
QUOTED = re.compile(r'"((?:[^"\\\r\n]|\\[ -~\t])*)"')


class NotStrict(ValueError):
    """The value is not a field of RFC 8601."""


@dataclass
class Result:
    """One resinfo."""

    method: str
    result: str
    reason: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    quoted: set[str] = field(default_factory=set)
    """The properties whose value stood in quotes."""
    repeated: set[str] = field(default_factory=set)
    """The properties that stood there more than once; `properties` has the last."""


@dataclass
class Field:
    """One field."""

    authserv_id: str
    results: list[Result]
    comments: list[str]

    def of(self, method: str) -> list[Result]:
        return [each for each in self.results if each.method == method]

    def one(self, method: str) -> Result:
        """The only result of that method."""
        (found,) = self.of(method)
        return found


def unfold(value: bytes, name: bytes, *, smtputf8: bool = False) -> str:
    """The value on one line; lines as a milter gives them (LF) or as they travel (CRLF)."""
    lines = (name + b":" + value).replace(b"\r\n", b"\n").split(b"\n")
    for number, line in enumerate(lines):
        if len(line) > 998:
            raise NotStrict("a line over 998 octets")
        if number and line[:1] not in (b" ", b"\t"):
            raise NotStrict("a line break that is no fold")
        if not line.strip(b" \t"):
            raise NotStrict("a line of white space")
    text = b"".join(lines).decode("utf-8" if smtputf8 else "ascii")[len(name) + 1 :]
    if any(not (char.isprintable() or char == "\t") for char in text):
        raise NotStrict("a control character")
    return text


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.comments: list[str] = []

    @property
    def next(self) -> str:
        return self.text[self.at : self.at + 1]

    def cfws(self) -> bool:
        """[CFWS]; whether there was any."""
        start = self.at
        while self.next and self.next in WSP + "(":
            if self.next == "(":
                self._comment()
            else:
                self.at += 1
        return self.at > start

    def _comment(self) -> None:
        start, depth = self.at, 0
        while True:
            char = self.next
            if not char:
                raise NotStrict("open comment")
            self.at += 2 if char == "\\" else 1
            depth += (char == "(") - (char == ")")
            if not depth:
                self.comments.append(self.text[start + 1 : self.at - 1])
                return

    def expect(self, char: str) -> None:
        if self.next != char:
            raise NotStrict(f"{char!r} expected at {self.text[self.at : self.at + 20]!r}")
        self.at += 1

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self.text, self.at)
        if not found:
            raise NotStrict(f"{what} expected at {self.text[self.at : self.at + 20]!r}")
        self.at = found.end()
        return found[0]

    def value(self) -> tuple[str, bool]:
        """token / quoted-string; and whether it was quoted."""
        if self.next == '"':
            return re.sub(r"\\(.)", r"\1", self.match(QUOTED, "quoted-string")[1:-1]), True
        return self.match(TOKEN, "token"), False

    def pvalue(self) -> tuple[str, bool]:
        if (found := ADDRESS.match(self.text, self.at)) is not None:
            self.at = found.end()
            return found[0], False
        return self.value()


def parse(
    value: bytes, *, name: bytes = b"Authentication-Results", smtputf8: bool = False
) -> Field:
    """The field. Raises NotStrict."""
    reader = _Reader(unfold(value, name, smtputf8=smtputf8))
    reader.cfws()
    authserv_id, _ = reader.value()
    results: list[Result] = []
    head = reader.comments
    if reader.cfws() and reader.next.isdigit():
        reader.match(re.compile(r"\d+"), "version")
        reader.cfws()
    while reader.next:
        reader.expect(";")
        reader.cfws()
        if not results and reader.text[reader.at :].rstrip(WSP) == "none":
            return Field(authserv_id, [], head)
        reader.comments = []
        results.append(_resinfo(reader))
    if not results:
        raise NotStrict("no result")
    return Field(authserv_id, results, head)


def _resinfo(reader: _Reader) -> Result:
    method = reader.match(KEYWORD, "method")
    reader.cfws()
    if reader.next == "/":
        reader.at += 1
        reader.cfws()
        reader.match(re.compile(r"\d+"), "method version")
        reader.cfws()
    reader.expect("=")
    reader.cfws()
    result = Result(
        method.lower(), reader.match(KEYWORD, "result").lower(), comments=reader.comments
    )
    spaced = reader.cfws()
    while reader.next not in ("", ";"):
        if not spaced:
            raise NotStrict("white space expected before a property")
        _property(reader, result)
        spaced = reader.cfws()
    return result


def _property(reader: _Reader, result: Result) -> None:
    ptype = reader.match(KEYWORD, "ptype").lower()
    reader.cfws()
    if ptype == "reason" and reader.next == "=":
        if result.reason or result.properties:
            raise NotStrict("reason out of place")
        reader.at += 1
        reader.cfws()
        result.reason, _ = reader.value()
        return
    reader.expect(".")
    reader.cfws()
    name = f"{ptype}.{reader.match(KEYWORD, 'property').lower()}"
    reader.cfws()
    reader.expect("=")
    reader.cfws()
    value, quoted = reader.pvalue()
    if name in result.properties:
        result.repeated.add(name)
    result.properties[name] = value
    if quoted:
        result.quoted.add(name)
