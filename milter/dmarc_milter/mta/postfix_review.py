"""What in a Postfix's files concerns this milter and should be known: order, chroot, overrides,
networks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network

from dmarc_milter.config.checks import IPNetwork, SocketAddress, networks
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.schema_policy import Authentication
from dmarc_milter.core.check_finding import LEVELS, Finding
from dmarc_milter.mta import postfix_commands
from dmarc_milter.mta.milter_lists.attached import (
    is_ours,
    main_cf_lacks,
    passes,
    unreachable,
)
from dmarc_milter.mta.milter_lists.wanted import MilterLists
from dmarc_milter.mta.postfix import MasterCfService, MilterEntry, Postfix, elements

WHERE = "postfix"


def review(
    files: Postfix,
    socket: SocketAddress,
    trust: Authentication,
    lists: MilterLists | None = None,
) -> tuple[Finding, ...]:
    """Everything found, the gravest first. error: mail does not reach the milter, or goes past it;
    warning: probably not meant; note: good to know. A socket that was handed over (fd) cannot be
    looked for: only the networks are compared. `lists`: what the lists of milters should be, where
    the host's other filters are known."""
    lists = lists or MilterLists(files, socket, trust=trust)
    found = [*_networks(files, trust), *_rewritten_on_the_way_out(files)]
    if socket.family != "fd":
        found += _attached(files, socket, lists)
        exempting = _Exempting(files, socket, trust)
        for service in files.smtpd():
            found += _service(lists, service, exempting)
    return tuple(sorted(found, key=lambda finding: -LEVELS.index(finding.level)))


def _attached(files: Postfix, socket: SocketAddress, lists: MilterLists) -> Iterator[Finding]:
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
        yield from _default_action(lists, milters[position])
        yield from _order(lists, milters, position)
        yield from _other_settings(files, socket, lists)
    elif main_cf_lacks(files, socket):
        yield Finding(
            "error",
            WHERE,
            "smtpd_milters in main.cf does not name this milter: mail does not go through it",
            "dmarc-milter setup --mta postfix --apply && postfix reload",
        )


def _default_action(lists: MilterLists, mine: MilterEntry) -> Iterator[Finding]:
    """What Postfix does with mail while the milter is down. Braces have the last word: main.cf's
    setting changes nothing there."""
    own = mine.settings.get("default_action")
    if (own or lists.files.value("milter_default_action")) == "accept":
        yield Finding(
            "warning",
            WHERE,
            "default_action=accept: while the milter is down mail passes unchecked; tempfail lets"
            " it wait",
            lists.command()
            if own
            else postfix_commands.set_value("milter_default_action", "tempfail"),
        )


def _order(lists: MilterLists, milters: Sequence[MilterEntry], position: int) -> Iterator[Finding]:
    """Which milters see the message before this one, and which after it."""
    before, after = milters[:position], milters[position + 1 :]
    if before:
        yield Finding(
            "warning",
            WHERE,
            f"{_endpoints(before)} comes before this milter: what it changes can break"
            " signatures, and it does not see our result",
            lists.command(),
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


def _other_settings(files: Postfix, socket: SocketAddress, lists: MilterLists) -> Iterator[Finding]:
    if files.value("milter_protocol") in ("2", "3", "4", "5"):
        yield Finding(
            "warning",
            WHERE,
            "milter_protocol is older than 6: header fields arrive altered and signatures fail;"
            " remove the line",
            postfix_commands.unset("milter_protocol"),
        )
    milters = files.milters("non_smtpd_milters")
    if any(is_ours(one, files, socket, chrooted=False) for one in milters):
        filtered = lists.is_filtered
        yield Finding(
            "warning" if filtered else "note",
            WHERE,
            "non_smtpd_milters names this milter too: such mail comes from 127.0.0.1 and is not"
            " evaluated"
            + (", and what a content filter gives back loses our result" if filtered else ""),
            lists.local_command() if filtered else "",
        )


class _Exempting:
    """Names of services that exempt all their mail by [authentication] trusted_daemons."""

    def __init__(self, files: Postfix, socket: SocketAddress, trust: Authentication) -> None:
        self.files, self.socket, self.trust = files, socket, trust

    def name(self, service: MasterCfService) -> str:
        """Of one that exempts its mail, else ""."""
        is_on = self.trust.sendmail_daemons_authenticate == "yes"
        return self.daemon(service) if is_on and self.is_trusted(service) else ""

    def daemon(self, service: MasterCfService) -> str:
        return self.files.value("milter_macro_daemon_name", service) or self.files.value(
            "myhostname"
        )

    def is_trusted(self, service: MasterCfService) -> bool:
        return self.daemon(service) in self.trust.trusted_daemons

    def is_for_our_users(self, service: MasterCfService) -> bool:
        """By its port, or by a trusted name given to it alone."""
        return service.is_submission or (
            "milter_macro_daemon_name" in service.options and self.is_trusted(service)
        )

    def lets_strangers_by(self, service: MasterCfService) -> bool:
        """Whether mail that nobody logged in for is exempt there."""
        return (
            bool(self.name(service))
            and passes(self.files, service, self.socket)
            and not (
                self.is_for_our_users(service)
                and self.files.value("smtpd_sasl_auth_enable", service) == "yes"
            )
        )

    def command(self) -> str:
        """trusted_daemons without any such name: the same for each, so that none undoes another."""
        out = {self.name(one) for one in self.files.smtpd() if self.lets_strangers_by(one)}
        kept = [one for one in self.trust.trusted_daemons if one not in out]
        return set_command("authentication.trusted_daemons", kept)


def _service(
    lists: MilterLists, service: MasterCfService, exempting: _Exempting
) -> Iterator[Finding]:
    """What master.cf says for one smtpd."""
    files, exempts = lists.files, exempting.name(service)
    is_asked = passes(files, service, lists.socket)
    if exempting.is_for_our_users(service):
        yield from _submission(service, exempting) if is_asked else ()
        return
    if exempts and is_asked:
        yield Finding(
            "error",
            WHERE,
            f"{service.name}: milter_macro_daemon_name {exempts} is in trusted_daemons, so that its"
            " mail is not evaluated",
            exempting.command(),
        )
    if service.is_given_back:
        yield from _given_back(files, service, exempting.trust, passes=is_asked)
    elif not is_asked:
        yield from _left_out(lists, service)


def _left_out(lists: MilterLists, service: MasterCfService) -> Iterator[Finding]:
    """Why mail from outside does not pass the milter here, where main.cf's smtpd_milters is not the
    reason."""
    files, options = lists.files, service.options
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
            else lists.command(service),
        )


def _submission(service: MasterCfService, exempting: _Exempting) -> Iterator[Finding]:
    """A service for our own users, whose mail passes the milter. Without a login its name should
    exempt nobody; a login is not ours to switch on, since an smtpd whose SASL is not set up dies
    of it."""
    exempts = exempting.name(service)
    if exempting.lets_strangers_by(service):
        yield Finding(
            "warning",
            WHERE,
            f"{service.name}: {exempts} exempts all its mail, and it offers no login"
            " (smtpd_sasl_auth_enable)",
            exempting.command(),
        )
    elif not exempts and service.is_submission:
        yield Finding(
            "note",
            WHERE,
            f"{service.name}: authenticated clients and trusted_networks are not evaluated,"
            " others are",
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
