"""How each option of OpenDMARC becomes a key of our configuration, or a note."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from dmarc_milter.config.errors import ConfigError
from dmarc_milter.config.load import parse
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Malformed
from dmarc_milter.core.toml import toml

Read = Callable[[str], str | None]
"""The text of a file that the configuration names; None when it cannot be read."""
Value = str | float | bool | list[str]

DEFAULT_REJECT = "rejected by DMARC policy for %s"
RENAMED = {
    "forensicreports": "failurereports",
    "forensicreportsbcc": "failurereportsbcc",
    "forensicreportsonnone": "failurereportsonnone",
    "forensicreportssentby": "failurereportssentby",
}
"""Names before OpenDMARC 1.3."""


@dataclass(frozen=True, slots=True)
class Option:
    """A line of the file: the name as written, and its value without a comment."""

    name: str
    value: str

    @property
    def key(self) -> str:
        return RENAMED.get(self.name.lower(), self.name.lower())

    @property
    def is_true(self) -> bool:
        """Only the first byte counts (opendmarc.conf(5))."""
        return self.value[:1] in ("T", "t", "Y", "y", "1")


@dataclass(slots=True)
class Draft:
    """The configuration while it is put together: values with why they are there, rules, and notes
    about the rest."""

    values: dict[tuple[str, str], tuple[Value, str]] = field(default_factory=dict)
    rules: list[tuple[dict[str, Value], str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def set(self, section: str, key: str, value: Value, why: str) -> None:
        """Take the value, unless our own checks refuse it: then a note says why."""
        try:
            parse(f"[{section}]\n{key} = {toml(value)}\n")
        except ConfigError as error:
            self.note(
                why,
                f"could not be taken over as [{section}] {key}: {str(error).partition(': ')[2]}",
            )
        else:
            self.values[section, key] = (value, why)

    def note(self, what: str, sentence: str) -> None:
        self.notes.append((what, sentence))


def _authserv_id(draft: Draft, option: Option, _read: Read) -> None:
    if option.value.upper() == "HOSTNAME":
        draft.note(f"{option.name} {option.value}", "that is the default: the host's name")
    else:
        draft.set("authentication", "authserv_id", option.value, f"{option.name} {option.value}")


def _trusted_ids(draft: Draft, option: Option, _read: Read) -> None:
    others = [identity for identity in _list(option.value) if identity.upper() != "HOSTNAME"]
    why = f"{option.name} {option.value}"
    if others:
        draft.set("authentication", "remove_authserv_ids", others, why)
    draft.note(
        why,
        "results of others are never trusted here: SPF, DKIM and ARC are evaluated anew, and"
        " fields under"
        " these names are removed as forged",
    )


def _socket(draft: Draft, option: Option, _read: Read) -> None:
    value = option.value
    family, _, rest = value.partition(":")
    if value.startswith("/") or family in ("local", "unix"):
        path = value if value.startswith("/") else rest
        draft.set("milter", "socket", f"unix:{path}", f"{option.name} {value}")
        _way_to_the_socket(draft, path)
    elif "@" not in rest:
        address = "::" if family == "inet6" else "0.0.0.0"  # noqa: S104 - what OpenDMARC does, with a note
        draft.set("milter", "socket", f"{family}:{rest}@{address}", f"{option.name} {value}")
        draft.note(
            f"{option.name} {value}",
            "listens on all addresses, as before; name one (e.g. @127.0.0.1) unless other hosts"
            " connect",
        )
    else:
        port, _, host = rest.partition("@")
        draft.set(
            "milter", "socket", f"{family}:{port}@{host.strip('[]')}", f"{option.name} {value}"
        )


def _way_to_the_socket(draft: Draft, path: str) -> None:
    folder = path.rpartition("/")[0]
    if folder not in ("/run/dmarc-milter", "/var/run/dmarc-milter"):
        match = re.fullmatch(r"(?:/var)?/run/([A-Za-z0-9_.-]+)", folder)
        how = f"RuntimeDirectory={match[1]}" if match else f"ReadWritePaths={folder}"
        draft.note(
            f"Socket {path}",
            "the systemd unit lets the daemon write in /run/dmarc-milter only: give it a drop-in"
            f" with {how}",
        )
    draft.note(
        f"Socket {path}",
        "the MTA's account must be in the socket's group, dmarc-milter; or use dmarc-milter.socket",
    )


def _umask(draft: Draft, option: Option, _read: Read) -> None:
    if re.fullmatch(r"[0-7]{1,4}", option.value):
        draft.set(
            "milter",
            "socket_mode",
            f"0{0o666 & ~int(option.value, 8):03o}",
            f"{option.name} {option.value}",
        )
    else:
        draft.note(f"{option.name} {option.value}", "is not a mask")


def _user(draft: Draft, option: Option, _read: Read) -> None:
    draft.note(
        f"{option.name} {option.value}", "the account is the systemd unit's User=, dmarc-milter"
    )


def _dns_timeout(draft: Draft, option: Option, _read: Read) -> None:
    seconds = float(option.value) if re.fullmatch(r"[0-9]{1,5}", option.value) else 0.0
    if seconds:
        draft.set("dns", "timeout", seconds, f"{option.name} {option.value}")
    else:
        draft.note(
            f"{option.name} {option.value}", "a lookup always has a limit here: [dns] timeout"
        )


def _suffixes(draft: Draft, option: Option, read: Read) -> None:
    why = f"{option.name} {option.value}"
    if read(option.value) is None:
        draft.note(why, "cannot be read; a list comes with the package")
    else:
        draft.set("dmarc", "suffix_list", option.value, why)
    draft.note(
        why,
        'policies are found by the tree walk of RFC 9989 now; discovery = "psl" in [dmarc] finds'
        " them by the list, as OpenDMARC did",
    )


def _failure_reports(draft: Draft, option: Option, _read: Read) -> None:
    draft.set("reporting", "failure_reports", option.is_true, f"{option.name} {option.value}")


def _reports_by(draft: Draft, option: Option, _read: Read) -> None:
    why = f"{option.name} {option.value}"
    if option.value == "USER@HOSTNAME":
        draft.note(why, "set [reporting] email")
    else:
        draft.set("reporting", "email", option.value, why)
        draft.note(why, "reports are sent once [reporting] org_name is set too")


def _history(draft: Draft, option: Option, _read: Read) -> None:
    why = f"{option.name} {option.value}"
    draft.note(
        why,
        "every message is recorded in [store] url; aggregate reports are sent once [reporting]"
        " org_name and email are set",
    )
    draft.note(
        why,
        "that file is not read: let opendmarc-import and opendmarc-reports send what it holds"
        " first",
    )


def _ignore_hosts(draft: Draft, option: Option, read: Read) -> None:
    why = f"{option.name} {option.value}"
    text = read(option.value)
    if text is None:
        draft.note(why, "cannot be read; put its networks into [authentication] trusted_networks")
        return
    networks, names = ["127.0.0.0/8", "::1/128"], []
    for entry in _entries(text):
        network = _network(entry)
        if network:
            networks += [network] if network not in networks else []
        elif entry.startswith("!") or isinstance(domain.parse(entry.lstrip(".")), Malformed):
            draft.note(f"{why}: {entry}", "is neither a network nor a host name; it was left out")
        else:
            names.append(entry.lstrip("."))
    draft.set("authentication", "trusted_networks", networks, why)
    if names:
        draft.rules.append(
            ({"action": "accept", "comment": "IgnoreHosts of OpenDMARC", "ptr": names}, why)
        )


def _ignore_from(draft: Draft, option: Option, _read: Read) -> None:
    domains = [
        word for word in _list(option.value) if not isinstance(domain.parse(word), Malformed)
    ]
    if domains:
        rule: dict[str, Value] = {
            "action": "accept",
            "comment": "IgnoreMailFrom of OpenDMARC",
            "author_domains": domains,
        }
        draft.rules.append((rule | {"include_subdomains": False}, f"{option.name} {option.value}"))
        draft.note(
            f"{option.name} {option.value}",
            "such mail is evaluated and recorded, and never refused; anybody can write that From"
            " field",
        )


def _sealers(draft: Draft, option: Option, read: Read) -> None:
    """DomainWhitelist and DomainWhitelistFile together."""
    why = f"{option.name} {option.value}"
    text: str | None = option.value
    if option.key.endswith("file"):
        text = read(option.value)
        if text is None:
            draft.note(
                why, "cannot be read; put its domains into [authentication] trusted_arc_sealers"
            )
            return
    before, said = draft.values.get(("authentication", "trusted_arc_sealers"), ([], ""))
    domains = list(before) if isinstance(before, list) else []
    for entry in _entries(text or ""):
        if isinstance(domain.parse(entry), Malformed):
            draft.note(f"{why}: {entry}", "is not a domain; it was left out")
        elif entry.lower() not in domains:
            domains.append(entry.lower())
    draft.set("authentication", "trusted_arc_sealers", domains, f"{said}; {why}" if said else why)


def _reject_text(draft: Draft, option: Option, _read: Read) -> None:
    why = f"{option.name} {option.value}"
    if option.value != DEFAULT_REJECT:
        draft.set("policy", "reject_text", option.value.replace("%s", "the author's domain"), why)
    draft.note(
        why, "the refusal names the domain and what failed by itself; reject_text is added to it"
    )


def _nothing(_draft: Draft, _option: Option, _read: Read) -> None:
    """Said by `_policy`, which looks at several options together."""


TRANSLATED: dict[str, Callable[[Draft, Option, Read], None]] = {
    "authservid": _authserv_id,
    "dnstimeout": _dns_timeout,
    "domainwhitelist": _sealers,
    "domainwhitelistfile": _sealers,
    "failurereports": _failure_reports,
    "failurereportssentby": _reports_by,
    "historyfile": _history,
    "holdquarantinedmessages": _nothing,
    "ignoreauthenticatedclients": _nothing,
    "ignorehosts": _ignore_hosts,
    "ignoremailfrom": _ignore_from,
    "publicsuffixlist": _suffixes,
    "rejectfailures": _nothing,
    "rejectmultivaluefrom": _nothing,
    "rejectstring": _reject_text,
    "requiredheaders": _nothing,
    "socket": _socket,
    "trustedauthservids": _trusted_ids,
    "umask": _umask,
    "userid": _user,
}


def without_controls(text: str) -> str:
    """Without control characters, which TOML allows nowhere."""
    return "".join(char if char.isprintable() else " " for char in text)


def _list(value: str) -> list[str]:
    return [word for word in re.split(r"[,\s]", value) if word]


def _entries(text: str) -> list[str]:
    """One or more entries a line, comments out."""
    return [
        entry
        for line in text.split("\n")
        for entry in _list(without_controls(line.partition("#")[0]))
    ]


def _network(entry: str) -> str:
    """ "" when it is not one."""
    try:
        return str(ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False))
    except ValueError:
        return ""
