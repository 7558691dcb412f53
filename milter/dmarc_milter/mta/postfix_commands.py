"""Commands for a shell that change main.cf and master.cf (postconf(1)). A value that is not
printable ASCII makes none: it could act on the terminal that shows it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.mta.postfix import MasterCfService, MilterEntry, elements
from dmarc_milter.mta.setup_lines import postfix_milter

RELOAD = "postfix reload"
PRINTABLE = re.compile(r"[ -~]{1,4000}")


def set_value(name: str, value: str, service: MasterCfService | None = None) -> str:
    """In main.cf, or as the service's own in master.cf, where postconf takes no white space: there
    the value has none, commas are enough. "" where it cannot be a command."""
    if service is None:
        change = f"-e {shlex.quote(f'{name} = {value}')}"
    else:
        change = f"-P {shlex.quote(f'{place(service)}/{name}={_compact(value)}')}"
    text = f"postconf {change} && {RELOAD}"
    return text if PRINTABLE.fullmatch(text) else ""


def unset(name: str, service: MasterCfService | None = None) -> str:
    """The setting's line goes."""
    change = f"-X {name}" if service is None else f"-PX {shlex.quote(f'{place(service)}/{name}')}"
    text = f"postconf {change} && {RELOAD}"
    return text if PRINTABLE.fullmatch(text) else ""


def set_milters(
    entries: Iterable[MilterEntry],
    service: MasterCfService | None = None,
    name: str = "smtpd_milters",
) -> str:
    """These milters in this order; without any, nothing stays but an empty list."""
    return set_value(name, ", ".join(entry.text for entry in entries), service)


def together(commands: Iterable[str]) -> str:
    """One after the other, each once; Postfix reads its files again at the end."""
    changes = dict.fromkeys(one.removesuffix(f" && {RELOAD}") for one in commands)
    return " && ".join([*changes, RELOAD]) if changes else ""


def ours(socket: SocketAddress) -> MilterEntry:
    """This milter as `setup` writes it."""
    text = postfix_milter(socket)
    endpoint, *_ = elements(text.strip("{ }"))
    return MilterEntry(endpoint, {}, text)


def with_setting(entry: MilterEntry, name: str, value: str) -> MilterEntry:
    """The same milter with one setting of its braces changed."""
    settings = {**entry.settings, name: value}
    pairs = "".join(f", {key}={setting}" for key, setting in settings.items())
    return MilterEntry(entry.endpoint, settings, f"{{ {entry.endpoint}{pairs} }}")


def place(service: MasterCfService) -> str:
    """As postconf -P names it."""
    return f"{service.name}/{service.type}"


def _compact(value: str) -> str:
    """Without white space: elements of lists and of braces may be parted by commas alone."""
    if not re.search(r"\s", value):
        return value
    return ",".join(
        f"{{{_compact(element[1:-1].strip())}}}" if element.startswith("{") else element
        for element in elements(re.sub(r"\s*=\s*", "=", value))
    )
