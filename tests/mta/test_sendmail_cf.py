"""What a sendmail.cf says of its daemons, and what follows for trusted_daemons (docs/attacks.md,
Whom we trust)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import Config
from dmarc_milter.config.schema_policy import Authentication
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.daemon.wiring import (
    authenticating_daemons,
    canonify,
    session_options,
    watched_sendmail_cf,
)
from dmarc_milter.mta import sendmail_cf
from dmarc_milter.mta.sendmail_watch import Demanding, Watched
from fakes.daemon import toml

UPSTREAM = """\
V10/Berkeley
Cwlocalhost
# O DaemonPortOptions=Name=MSA, M=a
O AliasFile=/etc/mail/aliases
O DaemonPortOptions=Name=MTA
O DaemonPortOptions=Port=587, Name=MSA, M=E
O Milter.macros.connect=j, _, {daemon_name}
"""


@pytest.mark.parametrize(
    ("lines", "demanding"),
    [
        ("O DaemonPortOptions=Port=587, Name=MSA, M=E", set()),
        ("O DaemonPortOptions=Port=587, Name=MSA", set()),
        ("O DaemonPortOptions=Port=587, Name=MSA, M=Ea", {"MSA"}),
        ("O DaemonPortOptions=Port=587,Name=MSA,Modify=aE", {"MSA"}),
        (
            "O DaemonPortOptions=Family=inet,  Name=MSA, Port=submission, M=Ea, Addr=127.0.0.1",
            {"MSA"},
        ),
        ("OOPort=587, Name=MSA, M=a", {"MSA"}),
        ("O DaemonPortOptions=Port=587,\n\tName=MSA,\n M=a", {"MSA"}),
        ("O DaemonPortOptions=Port=587, Name=MSA, M=EA", set()),  # A: authentication switched off
        ("# O DaemonPortOptions=Name=MSA, M=a", set()),
        ("O ClientPortOptions=Name=MSA, M=a", set()),
        (
            "O DaemonPortOptions=Name=MSA, M=a\nO DaemonPortOptions=Name=MSA, Family=inet6, M=E",
            set(),
        ),  # one port of the name does not
        ("O DaemonPortOptions=Name=MSA, M=a\nO DaemonPortOptions=Name=MTA", {"MSA"}),
        ("O DaemonPortOptions=Port=587, M=a", {"Daemon0"}),
        (UPSTREAM, set()),
        ("", set()),
    ],
)
def test_which_daemons_demand_a_login(lines: str, demanding: set[str]) -> None:
    """FWD-21: Modifiers with `a` on each port that has the name (Sendmail Installation and
    Operation Guide, DaemonPortOptions)."""
    assert sendmail_cf.demanding(lines) == demanding


ODD_LINES = {
    "O DaemonPortOptions=Port=587, Name=MSA # M=a": ("MSA", False),
    "O DaemonPortOptions=Port=587, Name=MSA#, M=a": ("MSA", False),
    "O DaemonPortOptions=Name=MSA, # port 587\n\tM=a": ("MSA", True),
    "O DaemonPortOptions=Name=MSA,\n# M=E\n\tM=a": ("MSA", False),
    "O DaemonPortOptions=Name=MSA, M=E \\# a": ("MSA", True),
    "O DaemonPortOptions=n=MSA,p=587,m=a": ("MSA", True),
    "O DaemonPortOptions=name=MSA, port=587": ("MSA", False),
    "O DaemonPortOptions=Name=MSA, M = E a": ("MSA", True),
    "O DaemonPortOptions=Name=MSA, M=a, M=E": ("MSA", False),
    "O DaemonPortOptions=Name=MSA, M=a, Name, M": ("MSA", True),
    "O DaemonPortOptions=Name=MTA, M=a, Name=MSA": ("MSA", True),
    "O DaemonPortOptions=Name=MSA, M=" + "E" * 84 + "a": ("MSA", False),
    "O DaemonPortOptions=Name=MSA\tM=a": ("MSA\tM=a", False),
    "O DaemonPortOptions=Name=MSA M=a": ("MSA M=a", False),
    "O DaemonPortOptions=Name=MSA; M=a": ("MSA; M=a", False),
    'O DaemonPortOptions="Name=MSA, M=a"': ("Daemon0", True),
    'O DaemonPortOptions=Name="MSA", M=a': ('"MSA"', True),
    "O DaemonPortOptions=M=a": ("Daemon0", True),
    "O daemonportoptions = Name=MSA, M=a": ("MSA", True),
    "O DaemonPortOptions =Name=MSA": ("MSA", False),
    "O Daemon=Name=MSA": ("MSA", False),
    "O Dae=Name=MSA, M=a": ("MSA", True),
    "O DaemonPortOptions.x=Name=MSA": ("MSA", False),
    "OO Name=MSA, M=a": ("MSA", True),
    "O DaemonPortOptions=Name=MSA, M=a\r": ("MSA", True),
    "O  DaemonPortOptions=Name=MSA, M=a": None,
    "O\tDaemonPortOptions=Name=MSA, M=a": None,
    "O DaemonPortOptions Name=MSA, M=a": None,
    "O DaemonPortOptions:Name=MSA, M=a": None,
    "O Da=Name=MSA, M=a": None,
    "o DaemonPortOptions=Name=MSA, M=a": None,
    "O ClientPortOptions=Name=MSA, M=a": None,
    "# O DaemonPortOptions=Name=MTA\n\tName=MSA, M=a": None,
}
"""Lines, and the daemon that Sendmail makes of each: its name and whether it demands a login."""


@pytest.mark.parametrize("line", ODD_LINES)
def test_a_line_is_read_as_sendmail_reads_it(line: str) -> None:
    """MTA-40: comments, continuation lines, small letters, abbreviations, repeated keys. A live
    test asks Sendmail itself about the same lines."""
    found = sendmail_cf.daemons(f"V10/Berkeley\n{line}\n")
    expected = ODD_LINES[line]
    assert [(each.name, each.demands_login) for each in found] == ([expected] if expected else [])


def test_daemons_without_a_name_are_counted() -> None:
    """MTA-41: as Sendmail counts all of them from 0, so that their names can be in
    trusted_daemons."""
    text = "O DaemonPortOptions=Name=A\nO DaemonPortOptions=M=a\nO DaemonPortOptions=M=E\n"
    assert sendmail_cf.demanding(text) == {"Daemon1"}


def test_a_file_that_is_too_long_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MTA-42: behind the part that is read another line may ask for no login."""
    monkeypatch.setattr(sendmail_cf, "MAX_FILE", 100)
    file = tmp_path / "sendmail.cf"
    file.write_text("O DaemonPortOptions=Name=MSA, M=a\n" + "#" * 100 + "\n" + UPSTREAM)
    assert sendmail_cf.read(file) is None
    assert Watched(file).demanding() == frozenset()


def test_a_name_counts_as_the_configuration_says(tmp_path: Path) -> None:
    """FWD-20: auto believes sendmail.cf, and nothing where there is none."""
    file = tmp_path / "sendmail.cf"
    auto = Config(authentication=Authentication(sendmail_cf=str(file)))
    assert set(authenticating_daemons(auto)) == set()
    file.write_text(UPSTREAM)
    assert set(authenticating_daemons(auto)) == set()
    file.write_text(UPSTREAM.replace("M=E", "M=Ea"))
    assert set(authenticating_daemons(auto)) == {"MSA"}
    assert session_options(auto).daemons_of_sendmail
    for says, expected in (("no", frozenset()), ("yes", frozenset({"ORIGINATING", "MSA"}))):
        config = Config(authentication=Authentication(sendmail_daemons_authenticate=says))  # type: ignore[arg-type]
        assert session_options(config).trusted_daemons == expected
        assert not session_options(config).daemons_of_sendmail


def test_a_running_daemon_reads_a_changed_file_again(tmp_path: Path) -> None:
    """FWD-20: one look at the file serves trusted_daemons and the aliases alike; a login that is no
    longer demanded counts no more."""
    file = tmp_path / "elsewhere.cf"
    file.write_text(UPSTREAM.replace("M=E", "M=Ea"))
    held = Watched(file, tmp_path / "resolv.conf")
    names = Demanding(held, ["MSA", "ORIGINATING"])
    assert "MSA" in names
    assert "MTA" not in names
    assert held.demanding(0.0) == {"MSA"}
    file.write_text(UPSTREAM)
    far = time.monotonic() + 100
    assert held.demanding(far) == frozenset()
    assert (list(names), len(names)) == ([], 0)
    file.unlink()
    assert held.demanding(far + 100) == frozenset()


def test_both_options_look_at_the_configured_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FWD-20, MTA-07: whoever asks first, and however many ask."""
    file = tmp_path / "elsewhere.cf"
    file.write_text("Scanonify=3\nO DaemonPortOptions=Port=587, Name=MSA, M=Ea\n")
    config = Config(authentication=Authentication(sendmail_cf=str(file)))
    read: list[Path] = []
    known = sendmail_cf.read
    monkeypatch.setattr(sendmail_cf, "read", lambda path: read.append(path) or known(path))
    held = watched_sendmail_cf(config)
    how, options = canonify(config, held), session_options(config, held)
    for _ in range(3):
        assert how("sendmail") is not None
        assert "MSA" in options.trusted_daemons
    assert read == [file]


@pytest.mark.parametrize(("says", "level", "code"), [("auto", "warning", 0), ("yes", "error", 1)])
def test_a_port_that_asks_for_no_login_is_said(
    tmp_path: Path,
    says: str,
    level: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By `config check` and by `setup`."""
    from dmarc_milter.checks import configuration

    monkeypatch.setattr(
        configuration,
        "dns",
        lambda _config: iter([Finding("note", "dns", "not asked")]),
    )
    ours = f"O InputMailFilters=dmarc\nXdmarc, S=unix:{tmp_path}/s, F=T\n"
    (tmp_path / "sendmail.cf").write_text(UPSTREAM + ours)
    (tmp_path / "sendmail.mc").write_text("MAILER(`smtp')dnl\n")
    tables = {
        "milter": {"socket": f"unix:{tmp_path}/s"},
        "store": {"url": f"sqlite:///{tmp_path}/r.db"},
        "authentication": {"authserv_id": "mx.example.com", "sendmail_daemons_authenticate": says},
    }
    config = tmp_path / "c.toml"
    config.write_text(toml(tables))
    assert (
        main(
            [
                "config",
                "check",
                "--config",
                str(config),
                "--sendmail",
                str(tmp_path / "sendmail.cf"),
            ]
        )
        == code
    )
    said = capsys.readouterr().out.splitlines()
    (line,) = [each for each in said if "sendmail: " in each and "reaches this milter" not in each]
    assert line.startswith(level)
    assert "the daemon MSA (port 587) takes mail without authentication" in line
    main(
        [
            "setup",
            "--mta",
            "sendmail",
            "--config",
            str(config),
            "--sendmail-mc",
            str(tmp_path / "sendmail.mc"),
        ]
    )
    assert "warning: the daemon MSA (port 587)" in capsys.readouterr().out
