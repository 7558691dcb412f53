"""main.cf and sendmail.mc with this milter attached or detached: edits of their text that can be
undone to the byte."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dmarc_milter.mta import postfix
from dmarc_milter.mta.errors import AttachmentError
from dmarc_milter.mta.setup_lines import with_reasons

BEGIN, END = (
    "dmarc-milter setup: begin (dmarc-milter setup --remove takes it out)",
    "dmarc-milter setup: end",
)
INSERTED = "first in smtpd_milters: "
"""Says which element of an existing list is ours."""


def attach_postfix(text: str, element: str, settings: Sequence[str]) -> str:
    """main.cf with `element` first in smtpd_milters, and with those `settings` ("name = value")
    whose names it does not set."""
    text = detach_postfix(text)
    own = postfix.parse_main(text)
    wanted = [line for line in settings if line.partition(" ")[0] not in own]
    if "smtpd_milters" not in own:
        lines = with_reasons((f"smtpd_milters = {element}", *wanted), "#")
        return _appended(text, "#", lines)
    at = _start_of_value(text, "smtpd_milters")
    separator = ", " if own["smtpd_milters"] else ""
    return _appended(
        text[:at] + element + separator + text[at:],
        "#",
        [f"# {INSERTED}{element}", *with_reasons(wanted, "#")],
    )


def detach_postfix(text: str) -> str:
    """main.cf as it was before; unchanged where `attach_postfix` did not write. Raises
    AttachmentError."""
    inside, rest = _cut(text, "#")
    element = next(
        (line.removeprefix(f"# {INSERTED}") for line in inside if line.startswith(f"# {INSERTED}")),
        "",
    )
    if not element:
        return rest
    for inserted in (element + ", ", element):
        line = next(
            (
                parameter
                for parameter in _named(rest, "smtpd_milters")
                if inserted in rest[parameter.start : parameter.end]
            ),
            None,
        )
        if line is not None:
            at = rest.index(inserted, line.start)
            return rest[:at] + rest[at + len(inserted) :]
    return rest


def attach_sendmail(text: str, lines: str | Sequence[str]) -> str:
    """sendmail.mc with this line or these before other filters, or else before the mailers."""
    lines = [lines] if isinstance(lines, str) else lines
    text = detach_sendmail(text)
    place = re.search(r"^INPUT_MAIL_FILTER\(", text, re.MULTILINE) or re.search(
        r"^MAILER\(", text, re.MULTILINE
    )
    if place is None:
        return _appended(text, "dnl", lines)
    return text[: place.start()] + _marked("dnl", lines) + text[place.start() :]


def detach_sendmail(text: str) -> str:
    """sendmail.mc as it was before. Raises AttachmentError."""
    return _cut(text, "dnl")[1]


def is_attached(text: str, comment: str) -> bool:
    """Whether `setup --apply` wrote into it; `comment` is # or dnl."""
    return f"{comment} {BEGIN}\n" in text


def block(text: str, comment: str) -> str:
    """The lines that `setup --apply` wrote. Raises AttachmentError."""
    return "\n".join(_cut(text, comment)[0])


def _named(text: str, name: str) -> list[postfix.Line]:
    return [line for line in postfix.lines(text) if line.text.partition("=")[0].strip() == name]


def _start_of_value(text: str, name: str) -> int:
    """Where the value of the definition that counts, the last one, starts in the text: behind `=`
    and blanks of its first line."""
    at = text.index("=", _named(text, name)[-1].start) + 1
    while text[at : at + 1] in (" ", "\t"):
        at += 1
    return at


def _marked(comment: str, lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in (f"{comment} {BEGIN}", *lines, f"{comment} {END}"))


def _appended(text: str, comment: str, lines: Sequence[str]) -> str:
    """The block at the end. A text that does not end its last line does not do so afterwards
    either: that tells how it was."""
    added = _marked(comment, lines)
    return text + added if text.endswith("\n") or not text else f"{text}\n{added[:-1]}"


def _cut(text: str, comment: str) -> tuple[list[str], str]:
    """(lines inside the block, the text without it)."""
    if not is_attached(text, comment):
        return [], text
    begin, end = f"{comment} {BEGIN}\n", f"{comment} {END}"
    start = text.index(begin)
    stop = text.find(end, start)
    if stop < 0 or text.find(begin, start + 1) >= 0:
        raise AttachmentError(
            f"the lines {begin.strip()!r} and {end!r} do not match; remove what is between them"
            " by hand"
        )
    inside = text[start + len(begin) : stop].split("\n")[:-1]
    after = stop + len(end)
    if text[after : after + 1] == "\n":
        return inside, text[:start] + text[after + 1 :]
    return inside, text[: max(0, start - 1)] + text[after:]
