"""The edit that moves an MTA to this milter's socket, with what names an earlier socket of ours
taken out: nobody would listen there, and all mail would wait."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.core.text import printable
from dmarc_milter.mta import postfix, sendmail_cf, sendmail_review, setup_edits, setup_lines
from dmarc_milter.mta.errors import AttachmentError

LISTS = ("smtpd_milters", "non_smtpd_milters")
SETTINGS = (*LISTS, "smtpd_milter_maps")
FOLDER_OF_SYSTEMD = Path("/run/dmarc-milter")
LOOPBACK = ("127.0.0.1", "::1")
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
ENDPOINT = re.compile(r"(?:inet6?|unix|local):[^\s,{}]{1,300}")
TABLE = re.compile(r"\b[a-z]{2,20}:(/[^\s,{}]{1,300})")
SENDMAIL_ENDPOINT = re.compile(r"(?:inet6?:|unix:|local:|/)[^\s,`')]{1,300}")
SENDMAIL_LINE = re.compile(
    r"^[ \t]{0,80}INPUT_MAIL_FILTER\([ \t]{0,80}`dmarc-milter',[ \t]{0,80}`([^`'\n]{0,1000})'"
    r"[ \t]{0,80}\)[ \t]{0,80}(?:dnl[^\n]{0,1000})?(?:\n|\Z)",
    re.MULTILINE,
)
# All are bounded and anchored, so linear.


class Edit(NamedTuple):
    """`after`: the file's text. `taken`: what went out of it, as it was written. `is_left`: whether
    the entry that somebody else wrote for this socket stays instead of ours."""

    after: str
    taken: tuple[str, ...] = ()
    is_left: bool = False


def postfix_edit(
    before: str, files: postfix.Postfix, socket: SocketAddress, earlier: Sequence[SocketAddress]
) -> Edit:
    """main.cf with this milter at `socket` and at none of the `earlier` ones. Raises
    AttachmentError where those are named in a way that is not edited here: by a reference, in
    master.cf, in a table."""
    leaving = tuple(one for one in earlier if not is_same(one, socket))
    is_marked = setup_edits.is_attached(before, "#")
    going = (*leaving, socket) if is_marked else leaving
    text, taken = setup_edits.detach_postfix(before), []
    for name in LISTS:
        text, out = _without(text, name, lambda endpoint: is_at(endpoint, files, going))
        taken += out
    clean = replace(files, settings=postfix.parse_main(text))
    is_left = not is_marked and any(
        is_at(one.endpoint, clean, (socket,)) for one in clean.milters()
    )
    after = text
    if not is_left:
        element = setup_lines.postfix_milter(below_queue(files, socket))
        after = setup_edits.attach_postfix(text, element, setup_lines.POSTFIX_STRICT)
    edited = replace(files, settings=postfix.parse_main(after))
    places = (*still_named(edited, leaving), *_named_in_tables(edited, leaving))
    if places:
        raise AttachmentError(_refusal(places))
    return Edit(after, tuple(taken), is_left)


def marked_socket(before: str, files: postfix.Postfix) -> tuple[SocketAddress, ...]:
    """What the element that `setup` wrote into main.cf names."""
    found = re.findall(
        rf"^# {re.escape(setup_edits.INSERTED)}(.{{1,500}})$|^smtpd_milters = (\{{.{{1,500}})$",
        setup_edits.block(before, "#"),
        re.MULTILINE,
    )
    elements = [one for pair in found for one in pair if one]
    return tuple(
        there
        for element in elements
        for there in addresses(postfix.milter(element).endpoint, files)
    )


def former(before: str, files: postfix.Postfix, socket: SocketAddress) -> tuple[SocketAddress, ...]:
    """Sockets that `setup` takes out of main.cf when it attaches this milter at `socket`: where
    its own lines have it now, and the places that it chooses itself. Raises AttachmentError."""
    places = (FOLDER_OF_SYSTEMD, files.queue_directory / "dmarc-milter")
    usual = [SocketAddress("unix", path=str(place / "milter.sock")) for place in places]
    return tuple(one for one in (*marked_socket(before, files), *usual) if not is_same(one, socket))


def still_named(files: postfix.Postfix, sockets: Sequence[SocketAddress]) -> tuple[str, ...]:
    """Where main.cf and master.cf name these sockets, references followed: one phrase each."""
    found = []
    for name in SETTINGS:
        value = files.value(name)
        hits = _endpoints(value, files, sockets)
        found += [f"main.cf: {name} names {hit}" for hit in hits]
        for service in files.services:
            own = files.value(name, service)
            if own != value:
                where = f"master.cf: {service.name}/{service.type}/{name}"
                found += [f"{where} names {hit}" for hit in _endpoints(own, files, sockets)]
    return tuple(dict.fromkeys(found))


def sendmail_edit(
    before: str,
    socket: SocketAddress,
    earlier: Sequence[SocketAddress],
    *,
    is_moved: bool,
    cf: str = "",
) -> Edit:
    """sendmail.mc, in the same way. `is_moved`: the configuration will name `socket` only after
    this, so that a filter of our name at any other is refused. `cf`: the sendmail.cf made from it,
    which tells of filters that come from files it includes. Raises AttachmentError."""
    leaving = tuple(one for one in earlier if not is_same(one, socket))
    is_marked = setup_edits.is_attached(before, "dnl")
    going = (*leaving, socket) if is_marked else leaving
    taken = []

    def kept(match: re.Match[str]) -> str:
        endpoint = sendmail_review.equates(match[1]).get("S", "")
        if not _sendmail_is_at(endpoint, going):
            return match[0]
        taken.append(match[0].strip())
        return ""

    text = SENDMAIL_LINE.sub(kept, setup_edits.detach_sendmail(before))
    is_left = not is_marked and sendmail_review.has_filter(text)
    if is_left and is_moved and not _all_at(text, socket):
        raise AttachmentError(
            "nothing was changed: sendmail.mc has a filter named dmarc-milter at another socket,"
            " written by somebody else; take that line out, then run this again"
        )
    after = text
    if not is_left:
        lines = setup_lines.with_reasons(setup_lines.sendmail_lines(socket), "dnl")
        after = setup_edits.attach_sendmail(text, lines)
    places = sendmail_still_named(after, leaving)
    in_force = "\n".join(line for line in cf.split("\n") if line.startswith("X"))
    if is_moved and not sendmail_still_named(before, leaving):
        found = sendmail_still_named(in_force, leaving)
        places += tuple(f"{one} (as sendmail.cf says; a file that it includes?)" for one in found)
    if places:
        raise AttachmentError(_refusal(places))
    return Edit(after, tuple(taken), is_left)


def sendmail_still_named(text: str, sockets: Sequence[SocketAddress]) -> tuple[str, ...]:
    """Where sendmail.mc names these sockets, outside comments: one phrase each."""
    found = [
        f"sendmail.mc names {found}"
        for line in text.split("\n")
        for found in SENDMAIL_ENDPOINT.findall(_uncommented(line))
        if _sendmail_is_at(found, sockets)
    ]
    return tuple(dict.fromkeys(found))


def is_same(there: SocketAddress, socket: SocketAddress, *, perhaps: bool = False) -> bool:
    """Whether two sockets of this host are one. `perhaps`: a socket that listens on every address
    is reached by names that are not known here."""
    if "unix" in (there.family, socket.family):
        return there.family == socket.family and _path(there) == _path(socket)
    if there.port != socket.port or "fd" in (there.family, socket.family):
        return False
    if {there.host, socket.host} & set(WILDCARDS):
        return perhaps or {there.host, socket.host} <= {*WILDCARDS, *LOOPBACK, "localhost"}
    hosts = {there.host.lower(), socket.host.lower()}
    return len(hosts) == 1 or ("localhost" in hosts and bool(hosts & set(LOOPBACK)))


def _refusal(places: Sequence[str]) -> str:
    return printable(
        f"nothing was changed: {'; '.join(places)}, where this milter does not listen then, so that"
        " mail would wait; take it out there by hand, then run this again",
        2000,
    )


def _path(socket: SocketAddress) -> Path:
    return Path(re.sub(r"^/+var/run/", "/run/", str(Path(socket.path))))


def below_queue(files: postfix.Postfix, socket: SocketAddress) -> SocketAddress:
    """A path below the queue directory is given relative to it, which is right with chroot and
    without."""
    if socket.family == "unix" and files.queue_directory in Path(socket.path).parents:
        return replace(socket, path=str(Path(socket.path).relative_to(files.queue_directory)))
    return socket


# -- Postfix ---------------------------------------------------------------------------------------


def addresses(endpoint: str, files: postfix.Postfix) -> Iterator[SocketAddress]:
    """What an endpoint of Postfix may be: with chroot and without; Sendmail's spelling too."""
    found = [sendmail_review.socket_of(endpoint)] if "@" in endpoint else []
    found += [
        postfix.address(endpoint, files.queue_directory, chrooted=way) for way in (False, True)
    ]
    yield from (one for one in found if one is not None)


def is_at(endpoint: str, files: postfix.Postfix, sockets: Sequence[SocketAddress]) -> bool:
    """Whether an endpoint of Postfix is one of these, with chroot or without."""
    return any(is_same(there, one) for there in addresses(endpoint, files) for one in sockets)


def _endpoints(
    value: str, files: postfix.Postfix, sockets: Sequence[SocketAddress]
) -> Iterator[str]:
    """Found in the text, in whatever list, braces or condition they stand."""
    for endpoint in ENDPOINT.findall(value):
        there = list(addresses(endpoint, files))
        if any(is_same(one, socket, perhaps=True) for one in there for socket in sockets):
            yield endpoint


def _without(text: str, name: str, is_out: Callable[[str], bool]) -> tuple[str, list[str]]:
    """The text with those elements taken out of the definition that counts, the last one."""
    named = [
        line
        for line in postfix.lines(text)
        if "=" in line.text and line.text.partition("=")[0].strip() == name
    ]
    taken: list[str] = []
    if named:
        start = text.index("=", named[-1].start) + 1
        for begin, end, words in reversed(list(_spans(text, start, named[-1].end))):
            if "$" not in words and is_out(postfix.milter(words).endpoint):
                text = _cut_out(text, start, begin, end)
                taken.insert(0, words)
    return text, taken


def _named_in_tables(files: postfix.Postfix, sockets: Sequence[SocketAddress]) -> Iterator[str]:
    """smtpd_milter_maps by the text of its files; a table elsewhere (SQL, LDAP) is not asked."""
    for service in (None, *files.services):
        for path in TABLE.findall(files.value("smtpd_milter_maps", service)):
            text = sendmail_cf.read(Path(path)) or ""
            lines = (line for line in text.split("\n") if not line.lstrip().startswith("#"))
            for hit in _endpoints("\n".join(lines), files, sockets):
                yield f"{path} (smtpd_milter_maps) names {hit}"


def _spans(text: str, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """(begin, end, the words) of each element of a list in main.cf; comments are not part of it."""
    position, first, depth, words = start, -1, 0, ""
    for raw in text[start:end].split("\n"):
        is_comment = position > start and raw.lstrip().startswith("#")
        for at, character in enumerate("" if is_comment else f"{raw}\n", position):
            if depth == 0 and character in ", \t\r\n":
                if first >= 0:
                    yield first, at, " ".join(words.split())
                first, words = -1, ""
                continue
            first = at if first < 0 else first
            words += character
            depth += (character == "{") - (character == "}" and depth > 0)
        position += len(raw) + 1
    if first >= 0:
        yield first, end, " ".join(words.split())


def _cut_out(text: str, start: int, begin: int, end: int) -> str:
    """Without the element and the separators behind it, or before it where it is the last of its
    line; a line of its own goes whole."""
    while text[end : end + 1] in (",", " ", "\t"):
        end += 1
    line = max(text.rfind("\n", 0, begin) + 1, start)
    if text[end : end + 1] in ("", "\n"):
        if line > start and not text[line:begin].strip():
            return text[:line] + text[end + 1 :]
        begin = max(len(text[:begin].rstrip(", \t")), start)
    return text[:begin] + text[end:]


# -- Sendmail --------------------------------------------------------------------------------------


def _sendmail_is_at(endpoint: str, sockets: Sequence[SocketAddress]) -> bool:
    there = sendmail_review.socket_of(endpoint)
    return there is not None and any(is_same(there, one) for one in sockets)


def _all_at(text: str, socket: SocketAddress) -> bool:
    """Whether each filter of our name has this socket."""
    return all(
        _sendmail_is_at(sendmail_review.equates(match[2]).get("S", ""), (socket,))
        for match in sendmail_review.FILTER.finditer(text)
        if match[1] == sendmail_review.NAME
    )


def _uncommented(line: str) -> str:
    return "" if line.lstrip().startswith("#") else re.split(r"\bdnl\b", line, maxsplit=1)[0]
