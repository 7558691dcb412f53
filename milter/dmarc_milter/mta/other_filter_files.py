"""What the configuration files of other filters say, as far as it concerns this milter: where they
listen, and whether they verify, sign, refuse or write Authentication-Results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.mta.milter_lists.kinds import (
    JUDGES,
    REFUSES,
    REPORTS,
    SIGNS,
    VERIFIES,
    WRITES_RESULTS,
    Installed,
)
from dmarc_milter.mta.sendmail_review import socket_of

MAX_BYTES = 1 << 20
"""Of one file; a longer one is not read."""
MAX_FILES = 100
AMAVIS = ("etc/amavis/conf.d", "etc/amavisd", "etc/amavisd.conf")
RSPAMD_DMARC = ("local.d/dmarc.conf", "override.d/dmarc.conf")
RSPAMD_FIELDS = ("local.d/milter_headers.conf", "override.d/milter_headers.conf")
RSPAMD_WRITES = re.compile(
    r"(?<![\w-])use\s{0,20}[=:]?\s{0,20}(?:\[[^\]]{0,2000}?)?\"?(?<![\w-])authentication-results"
)
"""In `use`, a list or a single name; what `routines` says of it switches nothing on."""
RSPAMD_PROXY = ("local.d/worker-proxy.inc", "override.d/worker-proxy.inc")
POLICYD = "etc/postfix-policyd-spf-python/policyd-spf.conf"


def installed(root: Path = Path("/")) -> tuple[Installed, ...]:
    """The filters whose configuration is there and may be read."""
    return (
        *_opendkim(root),
        *_opendmarc(root),
        *_rspamd(root),
        *_amavis(root),
        *_spamass_milter(root),
        *_policyd(root),
    )


def _opendkim(root: Path) -> Iterator[Installed]:
    """opendkim.conf(5): Mode is `sv` where it is not set."""
    text = _text(root / "etc/opendkim.conf")
    if text is None:
        return
    options = _options(text)
    mode = options.get("mode", "sv").lower()
    facts = {fact for letter, fact in (("v", VERIFIES), ("s", SIGNS)) if letter in mode}
    yield Installed(
        "OpenDKIM",
        str(root / "etc/opendkim.conf"),
        (*_sockets(options.get("socket", "")), *_default(root, "opendkim")),
        frozenset(facts),
    )


def _opendmarc(root: Path) -> Iterator[Installed]:
    text = _text(root / "etc/opendmarc.conf")
    if text is None:
        return
    options = _options(text)
    refuses = options.get("rejectfailures", "").lower() in ("true", "yes", "1")
    yield Installed(
        "OpenDMARC",
        str(root / "etc/opendmarc.conf"),
        (*_sockets(options.get("socket", "")), *_default(root, "opendmarc")),
        frozenset({REFUSES} if refuses else ()),
    )


def _rspamd(root: Path) -> Iterator[Installed]:
    folder = root / "etc/rspamd"
    if not folder.is_dir():
        return
    dmarc, fields, proxy = (
        "\n".join(_without_comments(_text(folder / name) or "") for name in names)
        for names in (RSPAMD_DMARC, RSPAMD_FIELDS, RSPAMD_PROXY)
    )
    facts = set()
    if not re.search(r"^\s*enabled\s*=\s*(?:false|no|off)\b", dmarc, re.MULTILINE):
        facts.add(JUDGES)
        if re.search(r"\b(?:reject|quarantine)\s*=\s*\"?(?:reject|quarantine|soft.reject)", dmarc):
            facts.add(REFUSES)
        if re.search(r"\breporting\s*(?:=\s*true|\{[^}]{0,2000}?enabled\s*=\s*true)", dmarc):
            facts.add(REPORTS)
    if RSPAMD_WRITES.search(fields):
        facts.add(WRITES_RESULTS)
    sockets: list[SocketAddress] = []
    for found in re.findall(r"bind_socket\s*=\s*\"([^\"\n]{1,200})\"", proxy):
        host, _, port = found.split()[0].rpartition(":")
        spelled = found.split()[0] if found.startswith("/") else f"inet:{port}@{_any(host)}"
        sockets += _sockets(spelled)
    yield Installed("Rspamd", str(folder), tuple(sockets), frozenset(facts))


def _any(host: str) -> str:
    return "0.0.0.0" if host in ("*", "*v4", "*v6") else host  # noqa: S104 - compared, not bound


def _amavis(root: Path) -> Iterator[Installed]:
    """Perl, of which the last assignment of each variable counts."""
    texts = [text for name in AMAVIS for text in _texts(root / name)]
    if not texts:
        return
    place = next(root / name for name in AMAVIS if any(_texts(root / name)))
    file = place / "amavisd.conf" if place.name == "amavisd" else place
    text = _without_comments("\n".join(texts))
    verifies = re.findall(r"\$enable_dkim_verification\s{0,20}=\s{0,20}([01])\s{0,20};", text)
    ports = re.findall(r"\$inet_socket_port\s{0,20}=\s{0,20}\[?([0-9, ]{1,100})\]?;", text)
    sockets = [
        socket
        for port in re.findall("[0-9]{1,5}", ports[-1] if ports else "")
        for socket in _sockets(f"inet:{port}@127.0.0.1")
    ]
    yield Installed(
        "Amavis",
        str(file),
        tuple(sockets),
        frozenset({VERIFIES} if verifies[-1:] == ["1"] else ()),
    )


def _spamass_milter(root: Path) -> Iterator[Installed]:
    """Debian's start script: below Postfix's queue directory where that is there."""
    if _text(root / "etc/default/spamass-milter") is None:
        return
    usual = ("/var/spool/postfix/spamass/spamass.sock", "/run/spamass/spamass.sock")
    sockets = [socket for path in usual for socket in _sockets(path)]
    yield Installed(
        "SpamAssassin",
        str(root / "etc/default/spamass-milter"),
        (*_default(root, "spamass-milter"), *sockets),
    )


def _policyd(root: Path) -> Iterator[Installed]:
    """policyd-spf.conf(5): both refuse on Fail where they are not set."""
    text = _text(root / POLICYD)
    if text is None:
        return
    options = {
        name.strip().lower(): value.strip().lower()
        for name, equals, value in (line.partition("=") for line in text.split("\n"))
        if equals and not name.startswith("#")
    }
    rejects = [
        options.get(name, "fail") not in ("false", "null", "no_check")
        for name in ("helo_reject", "mail_from_reject")
    ]
    yield Installed(
        "an SPF policy service",
        str(root / POLICYD),
        (),
        frozenset({REFUSES} if any(rejects) else ()),
    )


def _options(text: str) -> dict[str, str]:
    """`Name value` lines; names in lower case, the last one counts."""
    pairs = (line.split(None, 1) for line in _without_comments(text).split("\n"))
    return {pair[0].lower(): pair[1].strip() for pair in pairs if len(pair) == 2}


def _default(root: Path, name: str) -> tuple[SocketAddress, ...]:
    """SOCKET= of the start script's own settings; one with shell variables is not read."""
    text = _text(root / "etc/default" / name) or ""
    found = re.findall(r"^SOCKET=[\"']?([^\"'\n$]{1,200})[\"']?\s*$", text, re.MULTILINE)
    return _sockets(found[-1]) if found else ()


def _sockets(spelled: str) -> tuple[SocketAddress, ...]:
    socket = socket_of(spelled)
    return (socket,) if socket else ()


def _without_comments(text: str) -> str:
    return re.sub(r"(?m)(?:^|[ \t])#.*$", "", text)


def _texts(path: Path) -> Iterator[str]:
    """A file, or those of a folder in the order of their names."""
    try:
        names = sorted(path.iterdir())[:MAX_FILES] if path.is_dir() else [path]
    except OSError:
        return
    for name in names:
        text = _text(name)
        if text is not None:
            yield text


def _text(path: Path) -> str | None:
    """None where there is no such file, or we may not read it, or it is too long."""
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_BYTES + 1)
    except OSError:
        return None
    return octets.decode("utf-8", "replace") if len(octets) <= MAX_BYTES else None
