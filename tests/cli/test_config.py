"""`config check` against the world, and texts that cannot drift from the schema."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dmarc_milter.cli.main import main
from dmarc_milter.config.reference import reference
from fakes import report_sender
from fakes.daemon import Daemon, free_port, toml
from fakes.dns_server import DnsServer
from fakes.report_sender import SENDER
from fakes.signer import Signer

ROOT = Path(__file__).parents[2]
ZONE: dict[str, Any] = report_sender.ZONE | {"example.com": {"A": ["192.0.2.1"]}}
Check = Callable[..., tuple[int, list[tuple[str, str, str]]]]


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as server:
        yield server


@pytest.fixture
def check(tmp_path: Path, dns: DnsServer, capsys: pytest.CaptureFixture[str]) -> Check:
    """`config check` of these tables: (exit code, [(level, what, text)])."""

    def run(
        tables: dict[str, dict[str, Any]] | None = None, *words: str
    ) -> tuple[int, list[tuple[str, str, str]]]:
        basis: dict[str, dict[str, Any]] = {
            "milter": {"socket": f"inet:{free_port()}@127.0.0.1"},
            "authentication": {"authserv_id": "mx.example.com"},
            "dns": {"nameservers": [dns.nameserver], "timeout": 2.0},
            "store": {"url": f"sqlite:///{tmp_path}/reports.db"},
        }
        for name, table in (tables or {}).items():
            basis[name] = basis.get(name, {}) | table
        config = tmp_path / "c.toml"
        config.write_text(toml(basis))
        code = main(["config", "check", "--json", *words, "--config", str(config)])
        return code, [
            (each["level"], each["what"], each["text"])
            for each in json.loads(capsys.readouterr().out)["findings"]
        ]

    return run


def levels(found: list[tuple[str, str, str]], what: str) -> set[str]:
    return {level for level, where, _ in found if where == what}


def test_an_unreadable_file_is_one_line_and_the_sample_is_offered_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for path in (tmp_path / "none.toml", tmp_path):
        assert main(["config", "check", "--config", str(path)]) == 2
        said.append(capsys.readouterr().err)
    assert [text.count("\n") for text in said] == [1, 1]
    assert ["config sample" in text for text in said] == [True, False]


def test_a_folder_that_nobody_makes_is_an_error(check: Check, tmp_path: Path) -> None:
    """Only the state directory of the service is made by systemd; a mistyped path would leave every
    message unrecorded."""
    code, found = check({"store": {"url": f"sqlite:///{tmp_path}/typo/reports.db"}})
    assert code == 1
    assert levels(found, "spool") == levels(found, "store") == {"error"}
    assert f"{tmp_path}/typo does not exist" in next(
        text for _, where, text in found if where == "spool"
    )


def test_a_sound_host_has_nothing_to_mend(check: Check, tmp_path: Path) -> None:
    code, found = check()
    assert code == 0
    assert {level for level, _, _ in found} <= {"ok", "note"}
    assert {what for _, what, _ in found} >= {
        "file",
        "policy",
        "socket",
        "spool",
        "store",
        "dns",
        "authserv_id",
        "suffix list",
        "reports",
    }
    assert not (tmp_path / "reports.db").exists(), "a check changes nothing"


def test_offline_touches_nothing(check: Check, dns: DnsServer) -> None:
    dns.clear()
    code, found = check({"dns": {"nameservers": ["127.0.0.1:1"]}}, "--offline")
    assert code == 0
    assert not {"socket", "dns", "store"} & {what for _, what, _ in found}
    assert not dns.queries


def test_a_resolver_that_does_not_answer_is_an_error(check: Check) -> None:
    code, found = check({"dns": {"nameservers": ["127.0.0.1:1"], "timeout": 0.5}})
    assert code == 1
    assert levels(found, "dns") == {"error"}


def test_a_resolver_that_denies_everything_is_not_usable(check: Check, dns: DnsServer) -> None:
    """It answers, and what it says is of no use."""
    dns.behaviour = "nxdomain"
    try:
        code, found = check()
    finally:
        dns.behaviour = ""
    assert code == 1
    (text,) = (text for _, what, text in found if what == "dns")
    assert "not usable" in text
    assert "answering" not in text


def test_a_resolver_that_makes_names_up_is_warned_about(check: Check, dns: DnsServer) -> None:
    """Address pages in the place of NXDOMAIN."""
    dns.put("*.com", {"A": ["198.51.100.1"]})
    try:
        code, found = check()
    finally:
        dns.remove("*.com")
    assert code == 0
    assert levels(found, "dns") == {"warning", "ok"}


def test_a_socket_of_another_program_is_an_error_and_our_own_is_not(
    check: Check, tmp_path: Path, dns: DnsServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(20)
        code, found = check({"milter": {"socket": f"inet:{other.getsockname()[1]}@127.0.0.1"}})
    assert (code, levels(found, "socket")) == (1, {"error"})
    with Daemon(tmp_path) as daemon:
        code, found = check({"milter": {"socket": f"inet:{daemon.port}@127.0.0.1"}})
    assert code == 0
    assert any("the daemon is running" in text for _, _, text in found)


def test_ops_02_unsafe_places_of_a_unix_socket(check: Check, tmp_path: Path) -> None:
    """A link, a folder that everybody may write, a folder that is not there."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("/nowhere")
    for path in ("open/x.sock", "link", "missing/x.sock"):
        code, found = check({"milter": {"socket": f"unix:{tmp_path}/{path}"}})
        assert (code, "error" in levels(found, "socket")) == (1, True), path


def test_a_wildcard_address_is_warned_about(check: Check) -> None:
    code, found = check(
        {"milter": {"socket": f"inet:{free_port()}@0.0.0.0"}, "metrics": {"listen": "0.0.0.0:9893"}}
    )
    assert code == 0
    assert levels(found, "socket") == {"ok", "warning"}
    assert levels(found, "metrics") == {"warning"}


@pytest.mark.parametrize(
    ("name", "level"),
    [("localhost", "error"), ("mail", "warning"), ("co.uk", "error"), ("mx.example.com", "ok")],
)
def test_the_identity_is_a_name_of_ours(check: Check, name: str, level: str) -> None:
    assert levels(check({"authentication": {"authserv_id": name}})[1], "authserv_id") == {level}


def test_a_store_that_is_away_or_of_another_schema_says_what_to_do(
    check: Check, tmp_path: Path
) -> None:
    code, found = check(
        {"store": {"url": "postgresql://nobody@127.0.0.1:1/none", "spool": f"{tmp_path}/spool.db"}}
    )
    assert (code, levels(found, "store")) == (1, {"error"})


@contextlib.contextmanager
def ordinary_account() -> Iterator[None]:
    """Root counts as nobody where it asks for its permissions: access(2) goes by the real user
    id."""
    if os.geteuid() != 0:
        yield
        return
    os.setreuid(65534, 0)
    try:
        yield
    finally:
        os.setreuid(0, 0)


@pytest.mark.parametrize(("mode", "level"), [(0o500, "warning"), (0o777, "ok")])
def test_a_folder_that_cannot_be_written_is_warned_about(
    check: Check, mode: int, level: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "store").mkdir()
        (folder / "store").chmod(mode)
        with ordinary_account():
            found = check({"store": {"url": f"sqlite:///{folder}/store/reports.db"}})[1]
    assert levels(found, "store") == {level}


def reporting(tmp_path: Path, **more: str) -> dict[str, dict[str, Any]]:
    return {"reporting": {"org_name": "Example", "email": "dmarc@reports.example", **more}}


def key_file(tmp_path: Path, signer: Signer) -> str:
    """The signer's private key as an administrator keeps it."""
    private = signer.key
    assert isinstance(private, RSAPrivateKey)
    path = tmp_path / f"{signer.domain}.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return str(path)


def test_a_report_sender_that_others_would_believe(check: Check, tmp_path: Path) -> None:
    key = {
        "dkim_domain": "reports.example",
        "dkim_selector": SENDER.selector,
        "dkim_key_file": key_file(tmp_path, SENDER),
    }
    code, found = check(reporting(tmp_path, **key))
    assert code == 0, found
    assert levels(found, "reports") == {"ok"}
    assert any("publishes the key" in text for _, _, text in found)


@pytest.mark.parametrize(
    ("more", "level", "words"),
    [
        ({}, "note", "not signed here"),
        ({"email": "dmarc@nothing.example"}, "warning", "no SPF record"),
        ({"email": "dmarc@nothing.example"}, "error", "cannot get bounces"),
        ({"email": ""}, "warning", "both needed"),
        ({"bounce_address": "b" * 23 + "@reports.example"}, "warning", "at most 22"),
        (
            {"dkim_domain": "reports.example", "dkim_selector": "sel", "dkim_key_file": "/nowhere"},
            "error",
            "dkim_key_file",
        ),
        ({"dkim_domain": "reports.example", "dkim_selector": "missing"}, "error", "no key"),
        ({"dkim_domain": "else.example", "dkim_selector": "sel"}, "error", "does not align"),
        (
            {"dkim_domain": "reports.example", "dkim_selector": "OTHER"},
            "error",
            "publishes another key",
        ),
    ],
)
def test_what_is_wrong_with_a_report_sender(
    check: Check, tmp_path: Path, dns: DnsServer, more: dict[str, str], level: str, words: str
) -> None:
    if "dkim_domain" in more and "dkim_key_file" not in more:
        more = more | {"dkim_key_file": key_file(tmp_path, SENDER)}
    if more.get("dkim_selector") == "OTHER":
        other = Signer("reports.example", selector="other")
        dns.put(other.key_name, {"TXT": [other.record()]})
        more = more | {"dkim_selector": "other"}
    code, found = check(reporting(tmp_path, **more))
    assert any(
        where == "reports" and each == level and words in text for each, where, text in found
    ), found
    assert code == (1 if "error" in levels(found, "reports") else 0)


def test_a_postfix_is_looked_at_too(check: Check, tmp_path: Path) -> None:
    """--postfix MAIN.CF: master.cf beside it; mail that does not reach us is an error."""
    port = free_port()
    main_cf = tmp_path / "main.cf"
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    main_cf.write_text("compatibility_level = 3.6\nmynetworks = 127.0.0.0/8\n")
    code, found = check({"milter": {"socket": f"inet:{port}@127.0.0.1"}}, "--postfix", str(main_cf))
    assert (code, "error" in levels(found, "postfix")) == (1, True)
    main_cf.write_text(
        main_cf.read_text()
        + f"smtpd_milters = {{ inet:127.0.0.1:{port}, default_action=tempfail, content_timeout=300s"
        " }\n"
    )
    code, found = check({"milter": {"socket": f"inet:{port}@127.0.0.1"}}, "--postfix", str(main_cf))
    assert "error" not in levels(found, "postfix"), found
    assert code == 0
    code, found = check({}, "--postfix", str(tmp_path / "none.cf"))
    assert (code, levels(found, "postfix")) == (1, {"error"})


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), ("short", "fewer than 16")]
)
def test_a_token_that_the_dashboard_would_not_start_with_is_said(
    check: Check, tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    code, found = check({"web": {"token_file": str(file)}}, "--offline")
    assert code == 1
    [text] = [text for level, what, text in found if (level, what) == ("error", "web")]
    assert words in text


@pytest.mark.parametrize(
    ("deadline", "budget", "warned"), [(40.0, 25.0, False), (40.0, 60.0, True), (20.0, 25.0, True)]
)
def test_a_deadline_within_the_dns_budget_is_warned_about(
    check: Check, deadline: float, budget: float, warned: bool
) -> None:
    """Name servers that are only slow would have workers killed, and with each the sessions that it
    has."""
    found = check({"milter": {"deadline": deadline}, "dns": {"budget": budget}}, "--offline")[1]
    assert (
        any(
            level == "warning" and "deadline" in text and "budget" in text
            for level, _, text in found
        )
        is warned
    )


def test_monitor_mode_is_said(check: Check) -> None:
    code, found = check({"policy": {"enforce": False}})
    assert (code, levels(found, "policy")) == (0, {"note"})


def test_rules_that_match_nothing_any_more_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    rules = (
        'dkim = ["a.example"]\nexpires = "2026-01-31"',
        'arc = ["a.example"]',
        'dkim = ["a.example"]',
    )
    text = "[authentication]\narc = false\n" + "".join(
        f'[[policy.rules]]\naction = "accept"\n{each}\n' for each in rules
    )
    config.write_text(text)
    assert main(["config", "check", "--offline", "--config", str(config)]) == 0
    said = [
        line for line in capsys.readouterr().out.split("\n") if line.startswith("warning  policy")
    ]
    assert len(said) == 2
    assert "rule 1 expired on 2026-01-31" in said[0]
    assert "rule 2 never matches" in said[1]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('dkim = ["com"]', "a public suffix"),
        ('spf = ["lists.example.org", "co.uk"]', "below co.uk"),
        ('arc = ["github.io"]', "a public suffix"),
        ('networks = ["0.0.0.0/0"]', "a large part of the internet"),
        ('networks = ["192.0.2.1", "2000::/3"]', "2000::/3"),
        ('networks = ["0.0.0.0/1"]', "0.0.0.0/1"),
        ('networks = ["::/0"]', "::/0"),
        ('networks = ["::ffff:0:0/96"]', "0.0.0.0/0"),
        ('networks = ["16.0.0.0/8", "17.0.0.0/8", "18.0.0.0/8"]', "3 networks"),
        ('ptr = ["co.uk"]', "below co.uk"),
        ('dkim = ["com."]', "below com"),
        ('dkim = ["COM"]', "below com"),
        ('dkim = ["gmail.com"]', "every customer of gmail.com"),
        ('spf = ["amazonses.com"]', "every customer of amazonses.com"),
        ('author_domains = ["example.org"]', "forgers included"),
        ('author_domains = ["example.org"]\nrecipient_domains = ["b.example"]', "forgers included"),
    ],
)
def test_a_rule_that_lets_in_more_than_anybody_means_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str, words: str
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[[policy.rules]]\naction = "accept"\n{rule}\n')
    assert main(["config", "check", "--offline", "--config", str(config)]) == 0
    (said,) = (
        line for line in capsys.readouterr().out.split("\n") if line.startswith("warning  policy")
    )
    assert words in said


@pytest.mark.parametrize(
    "rule",
    [
        'action = "accept"\ndkim = ["lists.example.org"]\nnetworks = ["192.0.2.0/24"]',
        'action = "accept"\nauthor_domains = ["example.org"]\nnetworks = ["10.0.0.0/8"]',
        'action = "reject"\nauthor_domains = ["example.org"]',
        'action = "quarantine"\nnetworks = ["0.0.0.0/0"]',
    ],
)
def test_a_rule_that_is_narrow_or_strict_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: str
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"[[policy.rules]]\n{rule}\n")
    assert main(["config", "check", "--offline", "--config", str(config)]) == 0
    assert "warning  policy" not in capsys.readouterr().out


def test_the_lines_are_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[authentication]\nauthserv_id = "mx.example.com"\n')
    assert main(["config", "check", "--offline", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == f"ok       file: {config}"
    assert all(line.split(" ")[0] in ("ok", "note", "warning", "error") for line in lines if line)


def test_the_reference_page_is_printed_from_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """`dmarc-milter config reference > docs/reference/configuration.md` mends this."""
    assert (ROOT / "docs" / "reference" / "configuration.md").read_text() == reference()
    assert main(["config", "reference"]) == 0
    assert capsys.readouterr().out == reference()


def test_a_sendmail_that_rewrites_from_is_an_error(check: Check, tmp_path: Path) -> None:
    """MTA-08: --sendmail SENDMAIL.CF, or the configured one: loud where this milter is attached to
    it, a warning elsewhere."""
    cf = tmp_path / "sendmail.cf"
    rewriting = "Scanonify=3\nSCanonify2=96\nR$* $| $* < @ $* > $*\t\t$: $2 < @ $[ $3 $] > $4\n"
    cf.write_text(rewriting)
    code, found = check({}, "--sendmail", str(cf))
    assert (code, levels(found, "rewriting")) == (1, {"error"})
    configured = {"authentication": {"sendmail_cf": str(cf)}}
    assert levels(check(configured)[1], "rewriting") == {"warning"}
    cf.write_text("Xdmarc-milter, S=inet:8893@127.0.0.1\n" + rewriting)
    assert levels(check(configured)[1], "rewriting") == {"error"}
    cf.write_text("O DontExpandCnames=True\nScanonify=3\nSCanonify2=96\n")
    assert levels(check(configured)[1], "rewriting") == {"ok"}
    assert levels(check({}, "--sendmail", str(tmp_path / "none"))[1], "rewriting") == {"error"}


# -- what a reload asks first ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", 0, ""),
        ('[authentication]\nauthserv_id = "com"\n', 0, ""),  # wrong, and the daemon takes it
        ('[policy]\nenforce = "maybe"\n', 2, "must be true or false"),
        ("[policy\n", 2, "line 1"),
        ('[dmarc]\nsuffix_list = "/nowhere"\n', 0, ""),  # a running daemon keeps the list it has
    ],
)
def test_whether_the_daemon_would_take_a_file_is_told_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, said: str
) -> None:
    """`systemctl reload` fails where the file would be refused, and says why (the unit's
    ExecReload)."""
    (tmp_path / "c.toml").write_text(text)
    assert main(["config", "check", "--syntax", "--config", str(tmp_path / "c.toml")]) == code
    shown = capsys.readouterr()
    assert (shown.out, said in shown.err, bool(shown.err)) == ("", True, bool(said))


def test_the_units_ask_first_and_of_their_own_file(tmp_path: Path) -> None:
    """Also those of another instance."""
    root = Path(__file__).parents[2]
    folder = tmp_path / "units"
    shutil.copytree(root / "systemd", folder)
    subprocess.run(["sh", root / "tools/instance_units.sh", folder], check=True)
    for name in ("dmarc-milter", "dmarc-milter-drain"):
        for suffix, option in (
            (".service", ""),
            ("@.service", " --config /etc/dmarc-milter-%i/dmarc-milter.toml"),
        ):
            unit = (folder / f"{name}{suffix}").read_text()
            first, second = re.findall("^ExecReload=(.*)$", unit, re.MULTILINE)
            assert first == f"/usr/bin/dmarc-milter{option} config check --syntax"
            assert second.startswith("/usr/bin/kill -")
