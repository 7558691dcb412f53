"""What Sendmail writes into From after us: it looks the author's domain up and writes the name that
the DNS leads to.

It does so unless its configuration prevents it (FEATURE(nocanonify), O DontExpandCnames). The DNS
of a sender can lead to any name, and a search list completes short ones, so that the reader sees
another author than the one that was judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from dmarc_milter.core import budget
from dmarc_milter.core.dkim.result import DkimResult
from dmarc_milter.core.dmarc.author_policy import published
from dmarc_milter.core.dmarc.evaluate import DmarcOptions, PublicSuffixes, evaluate
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain, Malformed
from dmarc_milter.core.resolver import LookupFailed, Missing, NoAnswer, Resolver, gravest, missing
from dmarc_milter.core.spf.check import SpfResult

TYPES: tuple[Literal["AAAA", "A", "MX"], ...] = ("AAAA", "A", "MX")
"""What Sendmail asks for, in its order, each time following CNAMEs: an attacker's DNS may lead each
of them elsewhere."""
MAX_SEARCH = 6
"""Domains of a search list that are tried, as in resolv.conf(5)."""
MAX_NAMES = 8
"""Names that are judged; what leads to more is treated as unknown."""


@dataclass(frozen=True, slots=True)
class Canonify:
    """How the MTA finds the canonical name of a header address's domain."""

    aliases: bool = True
    """It writes the target of an alias."""
    search: tuple[str, ...] = ()
    """It completes names by these domains where they exist."""
    ndots: int = 1
    """A name with fewer dots is completed even where it exists as it stands (resolv.conf(5))."""
    own: str = ""
    """The MTA's own name, which every Sendmail writes for localhost and for what ends in .UUCP; ""
    where that is not known."""

    @property
    def looks_up(self) -> bool:
        """Whether the DNS has a say in what is written."""
        return self.aliases or bool(self.search)

    def is_local(self, name: str) -> bool:
        """Whether it writes its own name for this one (rulesets 96 and PseudoToReal of Sendmail's
        proto.m4 and smtp.m4)."""
        return bool(self.own) and (
            name in ("localhost", f"localhost.{self.own.partition('.')[2]}")
            or name.endswith(".uucp")
        )


class WritableNames(NamedTuple):
    """What may be written, without the author's own domain. `unknown`: an answer was `missing`, or
    there were too many names."""

    names: tuple[Domain, ...] = ()
    unknown: bool = False
    missing: Missing | None = None


class _Seen(NamedTuple):
    exists: bool
    aliases: tuple[str, ...]
    missing: Missing | None


def names(authors: Iterable[Domain], resolver: Resolver, how: Canonify) -> WritableNames:
    """What may be written in the place of these domains. Never raises; what it asks counts for the
    message."""
    share = resolver.share(queries=budget.WRITTEN_QUERIES, seconds=float("inf"))
    found: dict[Domain, None] = {}
    lost: list[Missing] = []
    odd = False
    own = tuple(authors)
    for author in own:
        for name in _written(author, share, how):
            parsed = name if isinstance(name, Missing) else domain.parse(name)
            if isinstance(parsed, Missing):
                lost.append(parsed)
            elif isinstance(parsed, Malformed):
                odd = True
            elif parsed not in own:
                found[parsed] = None
    return WritableNames(
        tuple(found)[:MAX_NAMES], bool(lost) or odd or len(found) > MAX_NAMES, gravest(lost)
    )


def _written(author: Domain, resolver: Resolver, how: Canonify) -> Iterator[str | Missing]:
    """The names, and what could not be found out."""
    if how.is_local(author.name):
        yield how.own
    if not how.looks_up:
        return
    seen = _look(author.name, resolver)
    yield from seen.aliases if how.aliases else ()
    if seen.missing and how.aliases:
        yield seen.missing
    if seen.exists and author.name.count(".") >= how.ndots:
        return
    for suffix in how.search[:MAX_SEARCH]:
        completed = f"{author.name}.{suffix}"
        longer = _look(completed, resolver)
        if longer.exists or longer.aliases:
            yield completed
            yield from longer.aliases if how.aliases else ()
        elif longer.missing:
            yield longer.missing


def _look(name: str, resolver: Resolver) -> _Seen:
    exists = False
    aliases: dict[str, None] = {}
    lost: list[Missing] = []
    for rdtype in TYPES:
        try:
            aliases.update(dict.fromkeys(resolver.aliases(name, rdtype)))
            _ask(name, rdtype, resolver)
            exists = True
        except NoAnswer:
            continue
        except LookupFailed as error:
            lost.append(missing(error))
    return _Seen(exists, tuple(aliases), gravest(lost))


def _ask(name: str, rdtype: Literal["AAAA", "A", "MX"], resolver: Resolver) -> None:
    """Raises NoAnswer where there is no such record."""
    if rdtype == "MX":
        resolver.mx(name)
    else:
        resolver.addresses(name, rdtype)


def prepare(
    found: WritableNames, resolver: Resolver, options: DmarcOptions, suffixes: PublicSuffixes | None
) -> None:
    """Ask for the policies of these names, before anything that the sender could make slow."""
    for name in found.names:
        published(name, resolver, options, suffixes)


def judged(
    dmarc: DmarcResult,
    found: WritableNames,
    methods: tuple[SpfResult, tuple[DkimResult, ...]],
    resolver: Resolver,
    options: DmarcOptions = DmarcOptions(),
    suffixes: PublicSuffixes | None = None,
) -> DmarcResult:
    """The result with the names for which the message does not pass. A pass for the author alone is
    none then. Never raises."""
    if not any(found):  # nothing written, unknown or missing
        return dmarc
    authors = (dmarc.outcome,) if dmarc.outcome else dmarc.candidates
    ours = {author.organizational_domain for author in authors} - {None}
    written = tuple(
        outcome
        for name in found.names
        if (outcome := evaluate(Author(name), *methods, resolver, options, suffixes).outcome)
        is not None
        and outcome.status is not DmarcStatus.PASS
        and outcome.organizational_domain not in ours
    )
    return _without_pass(
        replace(
            dmarc, written=written, written_unknown=found.unknown, written_missing=found.missing
        )
    )


def _without_pass(dmarc: DmarcResult) -> DmarcResult:
    """A pass is none where the MTA writes, or may write, another author."""
    written = dmarc.written
    if dmarc.status is not DmarcStatus.PASS or not dmarc.is_rewritten:
        return dmarc
    if written:
        return replace(
            dmarc,
            status=DmarcStatus.FAIL,
            reason=f"the MTA writes another author: {_shown(written)}",
        )
    return replace(
        dmarc,
        status=DmarcStatus.TEMPERROR,
        reason="which author the MTA writes could not be found out",
    )


def _shown(written: tuple[DomainOutcome, ...]) -> str:
    name = written[0].author_domain.name
    return name if len(name) <= 100 else "a long name"
