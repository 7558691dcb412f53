"""`dmarc-milter import`: OpenDMARC's own configuration files, and each option by itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.cli.main import main
from dmarc_milter.config import Config, parse
from dmarc_milter.mta import opendmarc
from live.place import REPOSITORY, give_up

LOOPBACK = ["127.0.0.0/8", "::1/128"]
SAMPLES = REPOSITORY / ".test/opendmarc"


def translated(text: str, files: dict[str, str] | None = None) -> tuple[Config, str]:
    """(the configuration as the daemon reads it, its text)"""
    made = opendmarc.translate(text, "opendmarc.conf", (files or {}).get)
    return parse(made), made


def sample(name: str) -> str:
    path = SAMPLES / name
    give_up("" if path.exists() else "run tools/fetch_opendmarc.sh (make test does) first")
    return path.read_text()


def test_debians_configuration_file_is_translated() -> None:
    """The socket stays the same; nothing is refused, as OpenDMARC refused nothing; what matters is
    said."""
    config, text = translated(sample("debian.conf"))
    assert config.milter.socket == "unix:/run/opendmarc/opendmarc.sock"
    assert config.milter.socket_mode == "0664"
    assert config.policy.enforce is False
    assert "RuntimeDirectory=opendmarc" in text
    assert "# - UserID opendmarc\n" in text


def test_every_option_of_the_sample_is_known() -> None:
    """Each is switched on as the sample shows it: translated or answered by a note that is its
    own."""
    shown = re.sub(r"^# ([A-Z])", r"\1", sample("sample.conf"), flags=re.MULTILINE)
    given = opendmarc.options(shown)
    assert len(given) > 40
    config, text = translated(shown, {"path": "com\n"})
    assert "is not an option" not in text
    for option in given:
        assert option.name in text, option
    assert config.milter.socket == "inet:8893@localhost"
    assert config.authentication.authserv_id == "name"
    assert config.authentication.trusted_arc_sealers == ["example.com"]
    assert config.policy.rules[0].author_domains == ["example.com"]
    assert config.dmarc.suffix_list == "path"


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("AuthservID mx.example.org", "authentication", "authserv_id", "mx.example.org"),
        ("AuthservID HOSTNAME", "authentication", "authserv_id", ""),
        (
            "TrustedAuthservIDs HOSTNAME,mx2.a.org mx3.a.org",
            "authentication",
            "remove_authserv_ids",
            ["mx2.a.org", "mx3.a.org"],
        ),
        ("authservid   mx.example.org   # ours", "authentication", "authserv_id", "mx.example.org"),
        ("Socket local:/run/x/y.sock", "milter", "socket", "unix:/run/x/y.sock"),
        ("Socket unix:/run/x/y.sock", "milter", "socket", "unix:/run/x/y.sock"),
        ("Socket /run/x/y.sock", "milter", "socket", "unix:/run/x/y.sock"),
        ("Socket inet:8893@127.0.0.1", "milter", "socket", "inet:8893@127.0.0.1"),
        ("Socket inet:8893@[127.0.0.1]", "milter", "socket", "inet:8893@127.0.0.1"),
        ("Socket inet6:8893@[::1]", "milter", "socket", "inet6:8893@::1"),
        ("Socket inet:54321", "milter", "socket", "inet:54321@0.0.0.0"),
        ("Socket inet6:54321", "milter", "socket", "inet6:54321@::"),
        ("Socket what:ever", "milter", "socket", "inet:8893@127.0.0.1"),
        ("UMask 002", "milter", "socket_mode", "0664"),
        ("UMask 0", "milter", "socket_mode", "0666"),
        ("UMask many", "milter", "socket_mode", "0660"),
        ("DNSTimeout 10", "dns", "timeout", 10.0),
        ("DNSTimeout 0", "dns", "timeout", 5.0),
        ("DNSTimeout 99999", "dns", "timeout", 5.0),
        ("RejectFailures true", "policy", "enforce", True),
        ("RejectFailures Yes", "dmarc", "on_temperror", "tempfail"),
        ("RejectFailures false", "policy", "enforce", False),
        ("", "policy", "enforce", False),
        ("HoldQuarantinedMessages 1", "policy", "quarantine_action", "hold"),
        ("HoldQuarantinedMessages 1", "policy", "reject_action", "quarantine"),
        ("HoldQuarantinedMessages 1\nRejectFailures 1", "policy", "reject_action", "reject"),
        ("RequiredHeaders true", "policy", "malformed_from", "reject"),
        ("RejectMultiValueFrom true", "policy", "malformed_from", "reject"),
        ("RequiredHeaders false", "policy", "malformed_from", "strictest"),
        (
            "RejectString %s says no; see https://mx.example.org/",
            "policy",
            "reject_text",
            "the author's domain says no; see https://mx.example.org/",
        ),
        ("RejectString 100% no", "policy", "reject_text", ""),
        ("RejectString rejected by DMARC policy for %s", "policy", "reject_text", ""),
        ("FailureReports true", "reporting", "failure_reports", True),
        ("ForensicReports true", "reporting", "failure_reports", True),
        ("FailureReportsSentBy dmarc@example.org", "reporting", "email", "dmarc@example.org"),
        ("FailureReportsSentBy USER@HOSTNAME", "reporting", "email", ""),
        ("PublicSuffixList /psl", "dmarc", "suffix_list", "/psl"),
        ("PublicSuffixList /nowhere", "dmarc", "suffix_list", ""),
        (
            "DomainWhitelist a.example, B.example",
            "authentication",
            "trusted_arc_sealers",
            ["a.example", "b.example"],
        ),
        (
            "DomainWhitelist a.example\nDomainWhitelistFile /sealers",
            "authentication",
            "trusted_arc_sealers",
            ["a.example", "c.example"],
        ),
        (
            "IgnoreHosts /hosts",
            "authentication",
            "trusted_networks",
            [*LOOPBACK, "192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32"],
        ),
        ("IgnoreHosts /nowhere", "authentication", "trusted_networks", LOOPBACK),
    ],
)  # fmt: skip
def test_an_option_becomes_its_counterpart(
    text: str, section: str, key: str, value: object
) -> None:
    """opendmarc.conf(5); what cannot be taken over leaves the default and a note."""
    files = {
        "/hosts": (
            "192.0.2.0/24  #"
            " office\n198.51.100.7\n[2001:db8::]/32\n!203.0.113.1\n"
            ".relay.example.net\nmx.example.net\n127.0.0.0/8\n"
        ),
        "/sealers": "# lists\nc.example\na.example\n-\n",
        "/psl": "com\n",
    }
    config, made = translated(text, files)
    assert getattr(getattr(config, section), key) == value
    if text:
        name = text.split(maxsplit=1)[0].lower().replace("forensic", "failure")
        assert name in made.lower().replace("forensic", "failure")


def test_hosts_that_were_ignored_by_name_become_a_rule() -> None:
    """A name is believed only if it is proven forth and back; an exclusion has no counterpart and
    is said."""
    config, text = translated(
        "IgnoreHosts /hosts", {"/hosts": "!203.0.113.1\n.relay.example.net mx.example.net\n"}
    )
    (rule,) = config.policy.rules
    assert (rule.action, rule.ptr) == ("accept", ["relay.example.net", "mx.example.net"])
    assert "# - IgnoreHosts /hosts: !203.0.113.1\n" in text


def test_mail_ignored_by_its_author_domain_becomes_a_rule() -> None:
    """Exactly those domains, not below them."""
    config, _ = translated("IgnoreMailFrom example.org,example.net")
    (rule,) = config.policy.rules
    assert (rule.action, rule.author_domains, rule.include_subdomains) == (
        "accept",
        ["example.org", "example.net"],
        False,
    )


def test_an_unknown_option_is_said() -> None:
    """A newer OpenDMARC, or a slip of the pen."""
    _, text = translated("FlyToTheMoon true")
    assert "# - FlyToTheMoon true\n#     is not an option" in text


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted({*opendmarc.TRANSLATED, *opendmarc.NOTES, "other"})),
            st.text(max_size=40),
        ),
        max_size=8,
    )
)
def test_whatever_the_file_says_the_result_is_a_valid_configuration(
    lines: list[tuple[str, str]],
) -> None:
    """Values that our checks refuse become notes; control characters reach neither values nor
    comments."""
    text = "\n".join(f"{name} {value}" for name, value in lines)
    said = opendmarc.translate(text, "x\ny", lambda _: "".join(value for _, value in lines))
    assert parse(said)
    assert all(each.isprintable() for each in said.split("\n"))


def test_the_command_prints_or_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that exists is never overwritten; names in the old file are relative to
    BaseDirectory."""
    old, new = tmp_path / "opendmarc.conf", tmp_path / "dmarc-milter.toml"
    (tmp_path / "hosts").write_text("192.0.2.0/24\n")
    old.write_text(f"BaseDirectory {tmp_path}\nIgnoreHosts hosts\nSocket inet:8893@127.0.0.1\n")
    assert main(["import", str(old)]) == 0
    printed = capsys.readouterr().out
    assert "192.0.2.0/24" in parse(printed).authentication.trusted_networks
    assert main(["import", str(old), "--output", str(new)]) == 0
    assert new.read_text() == printed
    assert main(["config", "check", "--config", str(new)]) in (0, 1)
    assert main(["import", str(old), "--output", str(new)]) == 2
    assert main(["import", str(tmp_path / "nowhere")]) == 2
    assert "File exists" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try would be told that it exists."""
    old, new = tmp_path / "opendmarc.conf", tmp_path / "dmarc-milter.toml"
    old.write_text("Socket inet:8893@127.0.0.1\n")

    def full(number: int, mode: str, *, encoding: str) -> IO[str]:
        os.close(number)
        assert mode == "w"
        return Path("/dev/full").open("w", encoding=encoding)

    monkeypatch.setattr("os.fdopen", full)
    code = main(["import", str(old), "--output", str(new)])
    assert (code, capsys.readouterr().err) == (
        2,
        f"dmarc-milter: {new}: cannot be written: No space left on device\n",
    )
    assert not new.exists()


def test_a_file_that_cannot_be_read_is_said_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, reason in (
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        assert main(["import", str(path)]) == 2
        assert capsys.readouterr().err == f"dmarc-milter: {path}: cannot be read: {reason}\n"


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("RejectFailures maybe", "false"),
        ("HoldQuarantinedMessages on", "false"),
        ("Syslog T4", "true"),
    ],
)
def test_a_value_that_is_neither_yes_nor_no_is_said(line: str, read: str) -> None:
    _, text = translated(f"{line}\n")
    assert f"# - {line}\n#     neither true nor false; read as {read}" in text


@pytest.mark.parametrize("line", ["RejectFailures yes", "RejectFailures 0", "Syslog TRUE"])
def test_a_value_that_is_clear_is_not(line: str) -> None:
    assert "neither true nor false" not in translated(f"{line}\n")[1]


@pytest.mark.parametrize(
    "text",
    [
        "[milter]\nworkers = 1\n",
        "root:x:0:0::/root:/bin/sh\n",
        '[milter]\nsocket = "inet:8893@localhost"\n',
        "Syslog yes\nSocket inet:8891@localhost\nMode sv\nUserID opendkim\n",
        "Socket inet:8891@localhost\nCanonicalization relaxed/simple\n",
        "\0\0\0",
        "\x7fELF\x02\x01",
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "x.conf").write_text(text)
    assert main(["import", str(tmp_path / "x.conf")]) == 2
    assert "is no opendmarc.conf" in capsys.readouterr().err
