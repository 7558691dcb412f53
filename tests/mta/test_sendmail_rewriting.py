"""A sendmail.cf as m4 makes it, and what it does to From (cf/README, FEATURE(`nocanonify'); op.me,
DontExpandCnames)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmarc_milter.core.dmarc.rewritten_from import Canonify
from dmarc_milter.mta.sendmail_rewriting import findings, how, parse, search_list

HEAD = (
    "Xdmarc-milter, S=inet:8893@127.0.0.1, F=T\n#O DontExpandCnames=True\nScheck_mail\nR<@>"
    " $+\t$:<?>  $[ $1 $]\n"
)
PLAIN = """\
Scanonify=3
R$* @ $*\t\t$@ $>Canonify2 $1 < @ $2 >\tInsert < > and finish
SCanonify2=96
R$* < @ $+ . UUCP > $*\t\t$: $1 < @ $[ $2 $] . UUCP . > $3
R$* CC $* $| $* < @ $+.$+ > $*\t$: $3 < @ $4.$5 . > $6
R$* CC $* $| $*\t$: $3
# pass to name server to make hostname canonical
R$* $| $* < @ $* > $*\t\t$: $2 < @ $[ $3 $] > $4
"""
NOT = """\
Scanonify=3
SCanonify2=96
R$* $| $* < @ $* $={Canonify} > $*\t$: $2 < @ $[ $3 $4 $] > $5
R$* c $* $| $* < @ $* > $*\t$: $3 < @ $[ $4 $] > $5
R$* $| $* < @ $+ . > $*\t$: $2 < @ $3 . > $4
R$* $| $* < @ $+.$+ > $*\t$: $2 < @ $3.$4 . > $5
"""
SHORT = NOT + "R$* $| $* < @ $* > $*\t\t$: $2 < @ $[ $3 $] > $4\n"
DONT = "O DontExpandCnames=True\n"
NO_SEARCH = "O ResolverOptions=-DNSRCH -DEFNAMES\n"
ALL, COMPLETES = (True, ("example",)), (False, ("example",))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PLAIN, ALL),
        (DONT + PLAIN, COMPLETES),
        (DONT + NO_SEARCH + PLAIN, None),
        (NO_SEARCH + PLAIN, (True, ())),
        (NOT, None),
        (DONT + NOT, None),
        (SHORT, COMPLETES),
        (DONT + SHORT, COMPLETES),
        (DONT + NO_SEARCH + SHORT, None),
        ("C{Canonify}attack.example\n" + NOT, ALL),
        ("F{Canonify}/etc/mail/canonify\n" + NOT, ALL),
        ("O DaemonPortOptions=Name=MTA, M=c\n" + NOT, ALL),
        ("O DaemonPortOptions=Name=MTA, Port=25,\n\tM=Eac\n" + NOT, ALL),
        ("O DaemonPortOptions=Name=MTA, M=CC\n" + NOT, None),
        ("O DaemonPortOptions=Name=MTA, M=CC\n" + PLAIN, ALL),
        ("O DontExpandCnames\n" + PLAIN, COMPLETES),
        ("O DontExpandCnames=1\n" + PLAIN, ALL),  # no truth to Sendmail
        ("O DontExpandCnames # no\n" + PLAIN, COMPLETES),
        ("O DontExpandCnames=False # True\n" + PLAIN, ALL),
        ("O DontExpand=y\n" + PLAIN, COMPLETES),
        ("O DontExpandCnames=y\nO DontE=n\n" + PLAIN, ALL),
        ("O  DontExpandCnames=True\n" + PLAIN, ALL),  # unknown to Sendmail
        (DONT + NO_SEARCH + "O Resolver=+DNSRCH\n" + PLAIN, COMPLETES),
        (DONT + "OI-DNSRCH -DEFNAMES\n" + PLAIN, None),
        (DONT + "O ResolverOptions=-dnsrch\nO ResolverOptions=-defnames\n" + PLAIN, None),
        (NOT + "# R$* $| $* < @ $* > $*\n\t$: $2 < @ $[ $3 $] > $4\n", None),
        (NOT + "R$* $| $* < @ $+.$+ > $*\t$: $2 # < @ $[ $3 $] > $4\n", None),
        ("O dontexpandcnames=true\r\n" + PLAIN, COMPLETES),
        ("O DontExpandCnames=True\nO DontExpandCnames=False\n" + PLAIN, ALL),
        ("S3\nR$* < @ $* > $*\t$: $1 < @ $[ $2 $] > $3\n", ALL),
        ("SHdrFromSMTP\nR$* < @ $* > $*\t$: $1 < @ $[ $2 $] > $3\n", ALL),
        ("Slocal_rule=3\nR$* < @ $* > $*\t$: $1 < @ $[ $2 $] > $3\n", ALL),
        ("", None),
        ("\0\xff" * 1000, None),
    ],
)
def test_what_reaches_readers(
    tmp_path: Path, text: str, found: tuple[bool, tuple[str, ...]] | None
) -> None:
    """MTA-07: both lines, one of them, neither; what undoes them: a class, a daemon's flag, a
    ruleset of one's own."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("search example\n")
    read = how(parse(HEAD + text), resolv_conf)
    assert read == (Canonify(*found) if found else None)
    levels = [finding.level for finding in findings(parse(HEAD + text), "sendmail.cf")]
    assert ("error" in levels) == bool(found)


def test_what_is_not_known_is_taken_for_the_default(tmp_path: Path) -> None:
    """MTA-07: Sendmail rewrites unless told not to."""
    assert how(None, tmp_path / "none") == Canonify(
        aliases=True, search=search_list(tmp_path / "none")[0]
    )


def test_filters_and_tables_are_read() -> None:
    """Whether this milter is attached there; and what else writes into From (cf/README,
    FEATURE(`domaintable'))."""
    cf = parse(HEAD + "R$*\t$: $(domaintable $1 $)\n")
    assert cf.has_filter("dmarc-milter")
    assert not cf.has_filter("dmarc")
    assert ["domaintable" in one.text for one in findings(cf, "x")] == [False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("search a.example b.example.\n", (("a.example", "b.example"), 1)),
        ("domain a.example\n", (("a.example",), 1)),
        ("search a.example\ndomain b.example c\n", (("b.example",), 1)),
        ("nameserver 127.0.0.1\noptions timeout:1 ndots:5\n", (("test.example",), 5)),
        ("search .\n", ((), 1)),
        ("", (("test.example",), 1)),
    ],
)
def test_the_search_list(tmp_path: Path, text: str, expected: tuple[tuple[str, ...], int]) -> None:
    """resolv.conf(5): the last of search and domain; without either the host's own domain."""
    (tmp_path / "resolv.conf").write_text(text)
    assert search_list(tmp_path / "resolv.conf", "mx.test.example") == expected
