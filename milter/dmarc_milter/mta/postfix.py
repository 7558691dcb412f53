"""Postfix's main.cf and master.cf as values, for `setup` and `config check --postfix`: milters,
chroot, mynetworks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dmarc_milter.config.checks import IPNetwork, SocketAddress, socket_address
from dmarc_milter.mta.errors import PostfixError

DEFAULTS = {
    "queue_directory": "/var/spool/postfix",
    "compatibility_level": "0",
    "smtpd_milters": "",
    "non_smtpd_milters": "",
}
"""Postfix's own, where a setting that matters here is not in the file (postconf(5))."""
SUBMISSION = frozenset({"submission", "submissions", "smtps", "587", "465"})
"""Names of services that take mail of our own users."""
MAX_DEPTH = 10
"""References within references; beyond that they go round in a circle."""
MAX_VALUE = 100_000
REFERENCE = re.compile(
    r"\$(?:\{([A-Za-z0-9_]{1,100})\}|\(([A-Za-z0-9_]{1,100})\)|([A-Za-z0-9_]{1,100}))"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A logical line (postconf(5)): `start` and `end` are the character positions of its
    text in the file."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class MasterCfService:
    """A line of master.cf. `chroot` is y, n or - as written; `options` are its -o overrides,
    `arguments` all words behind the command."""

    name: str
    type: str
    chroot: str
    command: str
    options: Mapping[str, str]
    arguments: tuple[str, ...] = ()

    @property
    def port(self) -> str:
        """What it listens on, without an address: smtp, 25, submission."""
        return self.name.rpartition(":")[2]

    @property
    def is_submission(self) -> bool:
        """Whether it takes mail of our own users rather than of strangers."""
        return self.port in SUBMISSION

    @property
    def is_given_back(self) -> bool:
        """Whether a content filter gives mail back here: a port of this host alone, other than
        25."""
        return (
            self.name.startswith(("127.", "[::1]", "localhost:"))
            and self.port not in ("25", "smtp")
            and self.type == "inet"
        )


@dataclass(frozen=True, slots=True)
class MilterEntry:
    """One element of smtpd_milters: `endpoint` as Postfix spells it, `settings` from the form in
    braces, `text` as written."""

    endpoint: str
    settings: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Postfix:
    """What the two files say."""

    settings: Mapping[str, str]
    services: tuple[MasterCfService, ...] = ()

    def value(self, name: str, service: MasterCfService | None = None) -> str:
        """A setting with its references replaced; the service's own -o comes first. "" when nobody
        set it and the default is empty."""
        return self._expanded(self._written(name, service), service, 0)[:MAX_VALUE]

    def milters(
        self, name: str = "smtpd_milters", service: MasterCfService | None = None
    ) -> tuple[MilterEntry, ...]:
        """The milters in their order, for a service or for main.cf alone."""
        return tuple(milter(element) for element in elements(self.value(name, service)))

    @property
    def queue_directory(self) -> Path:
        return Path(self.value("queue_directory"))

    def smtpd(self) -> tuple[MasterCfService, ...]:
        """The services that speak SMTP with clients, those of master.cf's postscreen (`smtpd pass`)
        included."""
        return tuple(
            service
            for service in self.services
            if service.command == "smtpd" and service.type in ("inet", "pass", "unix")
        )

    def is_chrooted(self, service: MasterCfService) -> bool:
        """`-` meant y before Postfix 3.0's compatibility level 1 (master(5))."""
        level = re.match(r"[0-9]{1,6}", self.value("compatibility_level"))
        return service.chroot == "y" or (
            service.chroot == "-" and (level is None or int(level[0]) < 1)
        )

    def networks(self) -> tuple[tuple[IPNetwork, ...], tuple[str, ...]]:
        """`mynetworks` as networks, and the elements that are not (tables, files, exclusions); both
        empty when it is not set."""
        found: list[IPNetwork] = []
        other: list[str] = []
        for element in elements(self.value("mynetworks")):
            try:
                found.append(
                    ipaddress.ip_network(element.replace("[", "").replace("]", ""), strict=False)
                )
            except ValueError:
                other.append(element)
        return tuple(found), tuple(other)

    def _written(self, name: str, service: MasterCfService | None) -> str:
        if service is not None and name in service.options:
            return service.options[name]
        return self.settings.get(name, DEFAULTS.get(name, ""))

    def _expanded(self, text: str, service: MasterCfService | None, depth: int) -> str:
        if depth >= MAX_DEPTH or "$" not in text:
            return text

        def value(match: re.Match[str]) -> str:
            return self._expanded(
                self._written(match[1] or match[2] or match[3], service), service, depth + 1
            )

        return REFERENCE.sub(value, text[:MAX_VALUE])


def read(main_cf: Path) -> Postfix:
    """The file and the master.cf beside it, which may be missing. Raises PostfixError."""
    master_cf = main_cf.with_name("master.cf")
    settings = parse_main(_text(main_cf))
    return Postfix(settings, parse_master(_text(master_cf)) if master_cf.exists() else ())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise PostfixError(f"{path}: cannot be read: {error.strerror}") from None


def lines(text: str) -> Iterator[Line]:
    """Logical lines: one that starts with white space continues the one before; empty ones and
    comments do not end it."""
    parts: list[str] = []
    start = end = position = 0
    for raw in text.split("\n"):
        begin, position = position, position + len(raw) + 1
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        if raw[0].isspace() and parts:
            parts.append(raw)
        else:
            if parts:
                yield Line(" ".join(parts), start, end)
            parts, start = [raw], begin
        end = begin + len(raw)
    if parts:
        yield Line(" ".join(parts), start, end)


def parse_main(text: str) -> dict[str, str]:
    """Settings as written; of several definitions the last counts."""
    settings = {}
    for line in lines(text):
        name, equals, value = line.text.partition("=")
        if equals:
            settings[name.strip()] = " ".join(value.split())
    return settings


def parse_master(text: str) -> tuple[MasterCfService, ...]:
    """Every service that is well enough formed to have a command."""
    services = []
    for line in lines(text):
        fields = line.text.split(None, 7)
        if len(fields) == 8:
            command, *arguments = elements(fields[7], separators=" \t")
            services.append(
                MasterCfService(
                    fields[0],
                    fields[1],
                    fields[4],
                    command,
                    _options(arguments),
                    tuple(arguments),
                )
            )
    return tuple(services)


def _options(arguments: list[str]) -> dict[str, str]:
    """`-o name=value`, `-oname=value` and `-o { name = value }`."""
    options = {}
    for index, argument in enumerate(arguments):
        if not argument.startswith("-o"):
            continue
        text = argument[2:] or (arguments[index + 1] if index + 1 < len(arguments) else "")
        name, equals, value = text.removeprefix("{").removesuffix("}").partition("=")
        if equals:
            options[name.strip()] = value.strip()
    return options


def elements(value: str, separators: str = ", \t\n") -> list[str]:
    """A list split at commas and white space, except inside braces (postconf(5), since 3.0)."""
    found: list[str] = []
    current: list[str] = []
    depth = 0
    for character in value:
        if character in separators and depth == 0:
            if current:
                found.append("".join(current))
            current = []
            continue
        depth += (character == "{") - (character == "}" and depth > 0)
        current.append(character)
    return [*found, "".join(current)] if current else found


def milter(element: str) -> MilterEntry:
    """`inet:HOST:PORT`, `unix:PATH` or `{ inet:HOST:PORT, name=value, ... }`."""
    if not element.startswith("{"):
        return MilterEntry(element, {}, element)
    inside = "=".join(
        part.strip() for part in element.removeprefix("{").removesuffix("}").split("=")
    )
    endpoint, *rest = elements(inside) or [""]
    pairs = (setting.partition("=") for setting in rest)
    return MilterEntry(endpoint, {name.strip(): value.strip() for name, _, value in pairs}, element)


def address(endpoint: str, queue_directory: Path, *, chrooted: bool) -> SocketAddress | None:
    """Our spelling of Postfix's endpoint; None when it has no such form. A path is below the queue
    directory if relative, or chrooted."""
    family, _, rest = endpoint.partition(":")
    try:
        if family in ("unix", "local"):
            path = queue_directory / (rest.lstrip("/") if chrooted else rest)
            return socket_address(f"unix:{path}")
        host, _, port = (rest if family == "inet" else endpoint).rpartition(":")
        host = host.strip("[]")
        return socket_address(f"{'inet6' if ':' in host else 'inet'}:{port}@{host}")
    except ValueError:
        return None
