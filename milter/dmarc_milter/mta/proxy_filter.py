"""How mail goes to a filter after it is queued instead of by smtpd_proxy_filter: commands that
cannot make it loop."""

from __future__ import annotations

import re

from dmarc_milter.core.text import printable
from dmarc_milter.mta.postfix import MasterCfService, Postfix

SETTING = "smtpd_proxy_filter"
HOST_AND_PORT = re.compile(
    r"(?:inet:)?(?:\[?([A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45})\]?:|:)?([0-9]{1,5})"
)
PLAIN = re.compile(r"[A-Za-z0-9._:\[\]-]{1,300}")


def remedy(files: Postfix, service: MasterCfService | None, value: str) -> str:
    """Commands where it stands in `service` of master.cf, or in main.cf (None); else words.

    content_filter in main.cf would hold at the port where the filter gives mail back as well, and
    mail would go round. So it is set for the services alone that had the proxy, which that port
    cannot be one of, and switched off at that port (SMTPD_PROXY_README, FILTER_README).
    """
    services = [service] if service else [one for one in files.smtpd() if _inherits(one)]
    back = [
        one
        for one in files.smtpd()
        if one.is_given_back
        and not one.options.get(SETTING)
        and "content_filter" not in one.options
    ]
    hop = HOST_AND_PORT.fullmatch(value)
    if (
        hop is None
        or not services
        or files.value("content_filter")
        or any("content_filter" in one.options for one in services)
        or not all(PLAIN.fullmatch(f"{one.name}{one.type}") for one in (*services, *back))
    ):
        return _in_words(service)
    target = f"smtp:[{hop[1] or '127.0.0.1'}]:{hop[2]}"
    out = f"-PX {_place(service)}/{SETTING}" if service else f"-X {SETTING}"
    commands = [f"postconf {out}"]
    commands += [f"postconf -P '{_place(one)}/content_filter={target}'" for one in services]
    commands += [f"postconf -P '{_place(one)}/content_filter='" for one in back]
    return " && ".join([*commands, "postfix reload"])


def _inherits(service: MasterCfService) -> bool:
    """Whether main.cf's smtpd_proxy_filter holds there, and must be replaced."""
    return SETTING not in service.options and not service.is_given_back


def _place(service: MasterCfService) -> str:
    return f"{service.name}/{service.type}"


def _in_words(service: MasterCfService | None) -> str:
    where = f"{printable(_place(service), 200)} in master.cf" if service else "main.cf"
    return (
        f"take {SETTING} out of {where}; in master.cf give the services that take mail from outside"
        " -o content_filter=TRANSPORT:NEXTHOP, and the one where the filter gives mail back -o"
        " content_filter= (else mail goes round)"
    )
