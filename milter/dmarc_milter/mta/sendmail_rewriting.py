"""What a sendmail.cf says about From: whether its header addresses are looked up in the DNS and
written as the DNS leads."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from dmarc_milter.core.check_finding import Finding
from dmarc_milter.core.dmarc.rewritten_from import Canonify
from dmarc_milter.mta import sendmail_cf

RESOLV_CONF = Path("/etc/resolv.conf")
# Rulesets through which header addresses go: 3 (canonify) and its half 96, 1 and 2, 4, and what
# mailers have of their own.
HEADER_RULESETS = re.compile(
    r"(?:[12345]|9[0-9]|canonify\w*|Canonify\w*|final|Hdr\w*|Masq\w*|PseudoToReal|AddDomain|Local_\w*)"
)
QUALIFIED_FIRST = re.compile(r"\$\*[ ]*\$\|[ ]*\$\*[ ]*<[ ]*@[ ]*\$\+[ ]*\.[ ]*\$\+[ ]*>")
"""The rule of FEATURE(nocanonify) that takes names with a dot away before the look-up of others."""
ONE_WORD = re.compile(r"\$\*[ ]*c[ ]+\$\*")
"""The rule for daemons with M=c."""


@dataclass(frozen=True, slots=True)
class SendmailCf:
    """`looks_up`: which domains of header addresses are looked up. `names` are the classes and
    options that a reader may miss."""

    looks_up: Literal["all", "short", "none"]
    """short: names without a dot only (FEATURE(nocanonify, canonify_hosts))."""
    expands: bool
    """The target of an alias is written (no O DontExpandCnames)."""
    completes: bool
    """A search list may complete a name (ResolverOptions)."""
    filters: tuple[str, ...] = ()
    """Mail filters (X lines) as written."""
    domain_table: bool = False
    """FEATURE(domaintable) writes other domains by the administrator's own table."""

    def has_filter(self, name: str) -> bool:
        """Whether a mail filter of that name is defined."""
        return any(re.match(rf"{re.escape(name)}\s*,", filter) for filter in self.filters)

    @property
    def rewrites(self) -> bool:
        """Whether the DNS may put another domain into From."""
        return self.looks_up != "none" and (self.expands or self.completes)


class _Rule(NamedTuple):
    ruleset: tuple[str, ...]
    left: str
    right: str


def parse(text: str) -> SendmailCf:
    """Read the file as Sendmail does: logical lines, the last definition of an option counts. Never
    raises."""
    options = list(sendmail_cf.options(text))
    filters: list[str] = []
    classes: set[str] = set()
    rules: list[_Rule] = []
    ruleset: tuple[str, ...] = ()
    for line in sendmail_cf.lines(text):
        kind, rest = line[0], line[1:]
        if kind in "CF":
            class_name = re.match(r"\{(\w+)\}|(\w)", rest)
            classes |= {class_name[1] or class_name[2]} if class_name else set()
        elif kind == "S":
            ruleset = tuple(re.split(r"[\s=,]+", rest.strip())[:2])
        elif kind == "R":
            left, _, right = rest.partition("\t")
            rules.append(_Rule(ruleset, left.strip(), right.strip("\t").partition("\t")[0].strip()))
        elif kind == "X":
            filters.append(rest)
    return SendmailCf(
        looks_up=_looked_up(rules, classes, [daemon.flags for daemon in sendmail_cf.daemons(text)]),
        expands=not _true(dict(options).get("dontexpandcnames", "False")),
        completes=_completes(value for name, value in options if name == "resolveroptions"),
        filters=tuple(filters),
        domain_table=any("$(domaintable" in rule.right for rule in rules),
    )


def _true(value: str) -> bool:
    """As Sendmail reads it: an empty value is true, 1 is not."""
    return not value or value[0] in "tTyY"


def _completes(values: Iterable[str]) -> bool:
    """Whether the resolver may complete a name, after all ResolverOptions in their order."""
    on = {"DNSRCH", "DEFNAMES"}
    for word in " ".join(values).upper().split():
        if word[0] == "-":
            on.discard(word[1:])
        elif word.lstrip("+") in ("DNSRCH", "DEFNAMES"):
            on.add(word.lstrip("+"))
    return bool(on)


def _looked_up(
    rules: list[_Rule], classes: set[str], flags: list[str]
) -> Literal["all", "short", "none"]:
    names: Literal["all", "short", "none"] = "none"
    dotted_gone: set[tuple[str, ...]] = set()
    for rule in rules:
        if not any(HEADER_RULESETS.fullmatch(name) for name in rule.ruleset):
            continue
        if "$[" not in rule.right:
            if QUALIFIED_FIRST.match(rule.left):
                dotted_gone.add(rule.ruleset)
        elif "$={Canonify}" in rule.left:
            names = "all" if "Canonify" in classes else names
        elif ONE_WORD.match(rule.left):
            names = "all" if any("c" in flag for flag in flags) else names
        elif rule.ruleset in dotted_gone:
            names = "short" if names == "none" else names
        else:
            names = "all"
    return names


WHERE = "rewriting"


def findings(cf: SendmailCf, where: str) -> Iterator[Finding]:
    """One sentence for each way in which From is changed after this milter has judged it."""
    finding = _look_ups(cf)
    if finding is not None:
        yield finding._replace(text=f"{where}: {finding.text}")
    if cf.domain_table:
        yield Finding(
            "note",
            WHERE,
            f"{where}: FEATURE(`domaintable') writes other domains into From after the milter has"
            " judged it; make sure that its table is yours",
        )


def _look_ups(cf: SendmailCf) -> Finding | None:
    """What the DNS does to From there: the gravest of it."""
    lines = "FEATURE(`nocanonify')dnl and define(`confDONT_EXPAND_CNAMES', `True')dnl"
    remedy = f"put {lines} into sendmail.mc before MAILER(), rebuild sendmail.cf, restart"
    if cf.looks_up == "all" and cf.expands:
        return Finding(
            "error",
            WHERE,
            "THIS SENDMAIL REWRITES From BY THE DNS after the milter has judged it:"
            " admin@x.attack.example, an alias of bank.example, reaches readers as"
            f" admin@bank.example; {remedy}",
        )
    if cf.looks_up != "none" and cf.completes:
        return Finding(
            "error",
            WHERE,
            "this Sendmail completes short names in From by its search list after the milter has"
            " judged them: admin@bank may reach readers as admin@bank.example;"
            f" {remedy} (without canonify_hosts)",
        )
    if cf.looks_up != "none" and cf.expands:
        return Finding(
            "error",
            WHERE,
            f"this Sendmail may write the target of an alias into From; {remedy}",
        )
    if cf.expands:
        return Finding(
            "note",
            WHERE,
            "O DontExpandCnames is not set; FEATURE(`nocanonify') alone keeps From as it was"
            f" judged: {remedy}",
        )
    return None


def search_list(resolv_conf: Path = RESOLV_CONF, host: str = "") -> tuple[tuple[str, ...], int]:
    """(search domains, ndots) of resolv.conf(5): LOCALDOMAIN, or the last `search` or `domain`, or
    else the host's own domain."""
    search: tuple[str, ...] = tuple(
        filter(None, [(host or socket.gethostname()).partition(".")[2]])
    )
    ndots = 1
    try:
        lines = resolv_conf.read_text(encoding="utf-8", errors="replace")[:65536].splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if words[:1] in (["search"], ["domain"]) and len(words) > 1:
            search = tuple(words[1:2] if words[0] == "domain" else words[1:])
        elif words[:1] == ["options"]:
            ndots = max(
                [
                    ndots,
                    *(int(word[6:8]) for word in words if re.fullmatch(r"ndots:[0-9]{1,2}", word)),
                ]
            )
    search = tuple(os.environ.get("LOCALDOMAIN", "").split()) or search
    return tuple(domain.rstrip(".").lower() for domain in search if domain.rstrip(".")), ndots


def read(path: Path) -> SendmailCf | None:
    """None where it cannot be read."""
    text = sendmail_cf.read(path)
    return None if text is None else parse(text)


def how(cf: SendmailCf | None, resolv_conf: Path = RESOLV_CONF) -> Canonify | None:
    """What the DNS may put into From by this configuration."""
    if cf is not None and not cf.rewrites:
        return None
    completes = cf is None or cf.completes
    search, ndots = search_list(resolv_conf) if completes else ((), 1)
    expands = cf is None or (cf.expands and cf.looks_up == "all")
    return Canonify(aliases=expands, search=search, ndots=ndots) if expands or search else None
