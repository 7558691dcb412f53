"""What in a Postfix's files concerns this milter and should be known: order, chroot, overrides,
networks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from dmarc_milter.config.checks import IPNetwork, SocketAddress, networks
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.schema_policy import Authentication
from dmarc_milter.core.check_finding import LEVELS, Finding
from dmarc_milter.mta import postfix_commands
from dmarc_milter.mta.postfix import MasterCfService, MilterEntry, Postfix, address, elements
from dmarc_milter.mta.setup_lines import reachable

WHERE = "postfix"


def review(files: Postfix, socket: SocketAddress, trust: Authentication) -> tuple[Finding, ...]:
    """Everything found, the gravest first. error: mail does not reach the milter, or goes past it;
    warning: probably not meant; note: good to know. A socket that was handed over (fd) cannot be
    looked for: only the networks are compared."""
    found = [*_networks(files, trust), *_rewritten_on_the_way_out(files)]
    if socket.family != "fd":
        found += _attached(files, socket)
        for service in files.smtpd():
            found += _service(files, service, socket, trust)
    return tuple(sorted(found, key=lambda finding: -LEVELS.index(finding.level)))


def is_ours(milter: MilterEntry, files: Postfix, socket: SocketAddress, *, chrooted: bool) -> bool:
    """Whether an element of smtpd_milters is this daemon's socket."""
    there = address(milter.endpoint, files.queue_directory, chrooted=chrooted)
    if there is None or socket.family == "unix":
        return there == socket
    return there.port == socket.port and _host(there) == _host(socket)


def _host(address: SocketAddress) -> str:
    host = reachable(address)
    return "127.0.0.1" if host == "localhost" else host


def unreachable(files: Postfix, socket: SocketAddress) -> str:
    """Why a chrooted smtpd cannot reach a unix socket; "" when all can."""
    if socket.family != "unix" or files.queue_directory in Path(socket.path).parents:
        return ""
    names = [service.name for service in files.smtpd() if files.is_chrooted(service)]
    if not names:
        return ""
    return (
        f"smtpd ({', '.join(names)}) is chrooted in master.cf and cannot reach {socket.path}; "
        "`dmarc-milter setup --mta postfix --socket unix` names one that it can, with its folder"
    )


def _attached(files: Postfix, socket: SocketAddress) -> Iterator[Finding]:
    """What main.cf alone says."""
    reason = unreachable(files, socket)
    if reason:
        remedy = (
            "dmarc-milter setup --mta postfix --socket unix --apply && systemctl restart"
            " dmarc-milter && postfix reload"
        )
        yield Finding("error", WHERE, reason, remedy)
    milters = files.milters()
    ours = [is_ours(milter, files, socket, chrooted=False) for milter in milters]
    if True in ours:
        position = ours.index(True)
        yield from _default_action(files, milters, position)
        yield from _order(milters, position)
        yield from _other_settings(files, socket)
    elif not any(map(files.is_chrooted, files.smtpd())) or not _in_any(files, socket):
        yield Finding(
            "error",
            WHERE,
            "smtpd_milters in main.cf does not name this milter: mail does not go through it",
            "dmarc-milter setup --mta postfix --apply && postfix reload",
        )


def _default_action(
    files: Postfix, milters: Sequence[MilterEntry], position: int
) -> Iterator[Finding]:
    """What Postfix does with mail while the milter is down. Braces have the last word: main.cf's
    setting changes nothing there."""
    own = milters[position].settings.get("default_action")
    if (own or files.value("milter_default_action")) == "accept":
        safe = postfix_commands.with_setting(milters[position], "default_action", "tempfail")
        yield Finding(
            "warning",
            WHERE,
            "default_action=accept: while the milter is down mail passes unchecked; tempfail lets"
            " it wait",
            postfix_commands.set_milters([*milters[:position], safe, *milters[position + 1 :]])
            if own
            else postfix_commands.set_value("milter_default_action", "tempfail"),
        )


def _order(milters: Sequence[MilterEntry], position: int) -> Iterator[Finding]:
    """Which milters see the message before this one, and which after it."""
    before, after = milters[:position], milters[position + 1 :]
    if before:
        yield Finding(
            "warning",
            WHERE,
            f"{_endpoints(before)} comes before this milter: what it changes can break"
            " signatures, and it does not see our result",
            postfix_commands.set_milters([milters[position], *before, *after]),
        )
    if after:
        yield Finding(
            "note",
            WHERE,
            f"{_endpoints(after)} comes after this milter and sees its Authentication-Results;"
            " that is the right order for signing too",
        )


def _endpoints(milters: Sequence[MilterEntry]) -> str:
    return ", ".join(milter.endpoint for milter in milters)


def _other_settings(files: Postfix, socket: SocketAddress) -> Iterator[Finding]:
    if files.value("milter_protocol") in ("2", "3", "4", "5"):
        yield Finding(
            "warning",
            WHERE,
            "milter_protocol is older than 6: header fields arrive altered and signatures fail;"
            " remove the line",
            postfix_commands.unset("milter_protocol"),
        )
    milters = files.milters("non_smtpd_milters")
    others = [one for one in milters if not is_ours(one, files, socket, chrooted=False)]
    if len(others) < len(milters):
        filtered = any(files.value("content_filter", one) for one in (None, *files.smtpd()))
        yield Finding(
            "warning" if filtered else "note",
            WHERE,
            "non_smtpd_milters names this milter too: such mail comes from 127.0.0.1 and is not"
            " evaluated"
            + (", and what a content filter gives back loses our result" if filtered else ""),
            postfix_commands.set_milters(others, name="non_smtpd_milters") if filtered else "",
        )


def _in_any(files: Postfix, socket: SocketAddress) -> bool:
    return any(_passes(files, service, socket) for service in files.smtpd())


def _service(
    files: Postfix, service: MasterCfService, socket: SocketAddress, trust: Authentication
) -> Iterator[Finding]:
    """What master.cf says for one smtpd."""
    passes = _passes(files, service, socket)
    daemon = files.value("milter_macro_daemon_name", service) or files.value("myhostname")
    trusted = daemon in trust.trusted_daemons
    exempts = daemon if trusted and trust.sendmail_daemons_authenticate == "yes" else ""
    # A trusted name given to this service alone marks a service for our own users.
    own = trusted and "milter_macro_daemon_name" in service.options
    if service.is_submission or own:
        yield from _submission(files, service, exempts) if passes else ()
        return
    if exempts and passes:
        yield Finding(
            "error",
            WHERE,
            f"{service.name}: milter_macro_daemon_name {daemon} is in trusted_daemons, so that its"
            " mail is not evaluated",
            set_command(
                "authentication.trusted_daemons",
                [one for one in trust.trusted_daemons if one != daemon],
            ),
        )
    if is_given_back(service):
        yield from _given_back(files, service, trust, passes=passes)
    elif not passes:
        yield from _left_out(files, service, socket)


def _left_out(files: Postfix, service: MasterCfService, socket: SocketAddress) -> Iterator[Finding]:
    """Why mail from outside does not pass the milter here, where main.cf's smtpd_milters is not the
    reason."""
    options = service.options
    overrides = elements(files.value("receive_override_options", service))
    if "no_milters" in overrides:
        where = "master.cf" if "receive_override_options" in options else "main.cf"
        yield Finding(
            "warning",
            WHERE,
            f"{service.name}: receive_override_options of {where} has no_milters: mail there goes"
            " through no milter",
            postfix_commands.set_value(
                "receive_override_options",
                ", ".join(one for one in overrides if one != "no_milters"),
                service if "receive_override_options" in options else None,
            ),
        )
    elif "smtpd_milters" in options:
        is_empty = not files.value("smtpd_milters", service)
        yield Finding(
            "warning",
            WHERE,
            f"{service.name}: -o smtpd_milters in master.cf leaves this milter out: mail there"
            " does not go through it",
            postfix_commands.unset("smtpd_milters", service)
            if is_empty
            else postfix_commands.set_milters(
                [postfix_commands.ours(socket), *files.milters(service=service)], service
            ),
        )


def _passes(files: Postfix, service: MasterCfService, socket: SocketAddress) -> bool:
    """Whether mail of this smtpd goes through the milter; `no_milters` switches all off
    (postconf(5), receive_override_options)."""
    overrides = elements(files.value("receive_override_options", service))
    chrooted = files.is_chrooted(service)
    return "no_milters" not in overrides and any(
        is_ours(milter, files, socket, chrooted=chrooted)
        for milter in files.milters(service=service)
    )


def _submission(files: Postfix, service: MasterCfService, exempts: str) -> Iterator[Finding]:
    """A service for our own users, whose mail passes the milter. `exempts`: its name in
    trusted_daemons, when that exempts all its mail."""
    if exempts and files.value("smtpd_sasl_auth_enable", service) != "yes":
        yield Finding(
            "warning",
            WHERE,
            f"{service.name}: {exempts} exempts all its mail, and it offers no login"
            " (smtpd_sasl_auth_enable)",
            postfix_commands.set_value("smtpd_sasl_auth_enable", "yes", service),
        )
    elif not exempts and service.is_submission:
        yield Finding(
            "note",
            WHERE,
            f"{service.name}: authenticated clients and trusted_networks are not evaluated,"
            " others are",
        )


def is_given_back(service: MasterCfService) -> bool:
    """Whether a content filter gives mail back here: a port of this host alone, other than 25."""
    return (
        service.name.startswith(("127.", "[::1]", "localhost:"))
        and service.port not in ("25", "smtp")
        and service.type == "inet"
    )


def _given_back(
    files: Postfix, service: MasterCfService, trust: Authentication, *, passes: bool
) -> Iterator[Finding]:
    yield from _rewritten_when_given_back(files, service)
    if passes and "smtpd_milters" not in service.options and not trust.keep_results_from:
        yield Finding(
            "warning",
            WHERE,
            f"{service.name}: mail that a content filter gives back here loses the"
            " Authentication-Results written before; it wants -o smtpd_milters= in master.cf, or"
            " the filter's address in keep_results_from",
            postfix_commands.set_value("smtpd_milters", "", service),
        )


def _rewritten_on_the_way_out(files: Postfix) -> Iterator[Finding]:
    """Postfix's cleanup rewrites header fields before it asks milters; what its delivery agents
    write nobody has judged."""
    for name in ("smtp_generic_maps", "lmtp_generic_maps", "smtp_header_checks"):
        if files.value(name):
            text = (
                f"{name} changes header fields after the milter has judged them: make sure"
                " that it puts only your own addresses into From"
            )
            yield Finding("note", WHERE, text)


def _rewritten_when_given_back(files: Postfix, service: MasterCfService) -> Iterator[Finding]:
    """What a content filter gives back comes from this host, and so is rewritten like its own mail,
    after the verdict (postconf(5))."""
    if files.value("local_header_rewrite_clients", service) != "permit_inet_interfaces" and (
        "local_header_rewrite_clients" in service.options
        or "local_header_rewrite_clients" in files.settings
    ):
        return
    level = re.match(r"[0-9]{1,6}", files.value("compatibility_level"))
    appends = files.value("append_dot_mydomain", service) or (
        "no" if level and int(level[0]) >= 1 else "yes"
    )
    names = [
        name
        for name in ("canonical_maps", "sender_canonical_maps", "masquerade_domains")
        if files.value(name, service)
    ]
    if appends == "yes":
        names.append("append_dot_mydomain")
    if names:
        yield Finding(
            "warning",
            WHERE,
            f"{service.name}: {', '.join(names)} rewrites From of mail that a content filter gives"
            " back here, after the milter has judged it; it wants -o local_header_rewrite_clients="
            " in master.cf",
            postfix_commands.set_value("local_header_rewrite_clients", "", service),
        )


def _networks(files: Postfix, trust: Authentication) -> Iterator[Finding]:
    """mynetworks and trusted_networks name the same hosts for the same reason."""
    mine, unread = files.networks()
    ours = networks(trust.trusted_networks)
    evaluated = [str(network) for network in mine if not any(_within(network, one) for one in ours)]
    if evaluated:
        yield Finding(
            "note",
            WHERE,
            f"mynetworks has {', '.join(evaluated)}, not in trusted_networks: mail from there is"
            " evaluated like any other mail",
        )
    strangers = [
        network for network in ours if mine and not any(_within(network, one) for one in mine)
    ]
    if strangers and not unread:
        kept = [
            text for text in trust.trusted_networks if not set(networks([text])) & set(strangers)
        ]
        yield Finding(
            "warning",
            WHERE,
            f"trusted_networks has {', '.join(map(str, strangers))}, not in mynetworks: mail from"
            " there is not evaluated",
            set_command("authentication.trusted_networks", kept),
        )
    if unread:
        yield Finding(
            "note",
            WHERE,
            f"mynetworks has {', '.join(unread)}, which is not read here; compare it with"
            " trusted_networks yourself",
        )


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    """IPv4-mapped networks count as IPv4, as clients do."""
    inner = _plain(inner)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # versions are the same


def _plain(network: IPNetwork) -> IPNetwork:
    if (
        isinstance(network, IPv6Network)
        and network.prefixlen >= 96
        and network.network_address.ipv4_mapped is not None
    ):
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network
