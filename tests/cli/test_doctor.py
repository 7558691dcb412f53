"""`doctor`: planted faults are found, and each comes with what mends it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dmarc_milter.checks import account, host
from dmarc_milter.cli.main import main
from dmarc_milter.config import Config, parse
from dmarc_milter.config.checks import socket_address
from fakes import report_sender
from fakes.daemon import free_port, toml
from fakes.dns_server import DnsServer
from fakes.report_sender import SENDER
from fakes.smtp_sink import smtp_sink

ZONE: dict[str, Any] = report_sender.ZONE | {
    "example.com": {"A": ["192.0.2.1"]},
    "bare.example": {"A": ["192.0.2.7"]},
}
Found = list[dict[str, str]]
Doctor = Callable[..., tuple[int, Found]]


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as server:
        yield server


@pytest.fixture
def doctor(tmp_path: Path, dns: DnsServer, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """`doctor --json` of a sound installation, with these tables changed."""

    def run(tables: dict[str, dict[str, Any]] | None = None, *words: str) -> tuple[int, Found]:
        basis: dict[str, dict[str, Any]] = {
            "milter": {"socket": f"inet:{free_port()}@127.0.0.1"},
            "authentication": {
                "authserv_id": "mx.example.com",
                "sendmail_cf": str(tmp_path / "none"),
            },
            "dns": {"nameservers": [dns.nameserver], "timeout": 2.0},
            "store": {"url": f"sqlite:///{tmp_path}/reports.db"},
        }
        for name, table in (tables or {}).items():
            basis[name] = basis.get(name, {}) | table
        config, main_cf = tmp_path / "c.toml", tmp_path / "main.cf"
        config.write_text(toml(basis))
        if not main_cf.exists():
            main_cf.write_text(f"smtpd_milters = {basis['milter']['socket']}\n".replace("@", "@"))
            (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\n")
        code = main(["--config", str(config), "doctor", "--json", *words])
        return code, json.loads(capsys.readouterr().out)["findings"]

    return run


def bad(found: Found, where: str) -> Found:
    """What is not well there; each of it says how to mend it."""
    wrong = [
        one
        for one in found
        if one["what"] == where and one["level"] in ("warning", "unknown", "error")
    ]
    assert all(one["remedy"] for one in wrong), wrong
    return wrong


REPORTING = {"org_name": "Example", "email": "dmarc@reports.example"}


def test_a_sound_installation_is_called_sound(doctor: Doctor, tmp_path: Path) -> None:
    with smtp_sink() as sink:
        code, found = doctor({"reporting": REPORTING | {"smtp": f"127.0.0.1:{sink.port}"}})
    assert code == 0, found
    assert not [one for one in found if one["level"] == "error"]
    assert {"configuration", "socket", "dns", "spool", "store", "account", "report path"} <= {
        one["what"] for one in found
    }


def test_a_mistake_in_the_file_is_shown_with_the_editor_at_its_line(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", "vi")
    code, found = doctor({"policy": {"enfroce": True}, "milter": {"workers": -1}})
    assert code == 1
    mistakes = bad(found, "configuration")
    assert len(mistakes) == 2
    assert all(one["remedy"].startswith("vi +") for one in mistakes)


def test_name_servers_that_are_silent_or_lie_are_found(doctor: Doctor) -> None:
    silent = {"dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": 0.5}}
    code, found = doctor(silent)
    assert code == 1
    (wrong,) = bad(found, "dns")
    assert "unbound" in wrong["remedy"]


@pytest.mark.parametrize(
    ("main_cf", "remedy"),
    [
        ("smtpd_milters = inet:127.0.0.1:1\n", "setup --mta postfix --main-cf"),
        ("smtpd_milters = { %s, default_action=accept }\n", "{ inet:127.0.0.1:"),
        (
            "smtpd_milters = %s\nmilter_default_action = accept\n",
            "-e 'milter_default_action = tempfail'",
        ),
        ("smtpd_milters = %s\nmilter_protocol = 2\n", "-X milter_protocol"),
        ("smtpd_milters = inet:127.0.0.1:1 %s\n", "-e 'smtpd_milters = inet:127.0.0.1:"),
    ],
)
def test_a_postfix_that_is_attached_wrongly_is_found(
    doctor: Doctor, tmp_path: Path, main_cf: str, remedy: str
) -> None:
    port = free_port()
    (tmp_path / "main.cf").write_text(
        main_cf.replace("%s", f"inet:127.0.0.1:{port}") if "%s" in main_cf else main_cf
    )
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    socket_here = {"milter": {"socket": f"inet:{port}@127.0.0.1"}}
    _, found = doctor(socket_here, "--postfix", str(tmp_path / "main.cf"))
    assert any(remedy in one["remedy"] for one in bad(found, "postfix"))


def test_a_daemon_that_does_not_run_while_the_mail_server_asks_for_it_is_found(
    doctor: Doctor, tmp_path: Path
) -> None:
    """All mail waits then (451); without a mail server that asks nothing is wrong."""
    port = free_port()
    here = {"milter": {"socket": f"inet:{port}@127.0.0.1"}}
    (tmp_path / "main.cf").write_text(f"smtpd_milters = inet:127.0.0.1:{port}\n")
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    code, found = doctor(here, "--postfix", str(tmp_path / "main.cf"))
    assert code == 1
    [start] = [one["remedy"] for one in bad(found, "socket")]
    assert re.fullmatch(r"dmarc-milter --config \S+ serve", start), "no unit has this file"
    (tmp_path / "main.cf").write_text("smtpd_milters = inet:127.0.0.1:1\n")
    _, found = doctor(here, "--postfix", str(tmp_path / "main.cf"))
    assert bad(found, "socket") == []


def test_a_chroot_that_cannot_reach_the_socket_is_found(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(f"smtpd_milters = unix:{tmp_path}/m.sock\n")
    (tmp_path / "master.cf").write_text("smtp inet n - y - - smtpd\n")
    unix = {"milter": {"socket": f"unix:{tmp_path}/m.sock"}}
    _, found = doctor(unix, "--postfix", str(tmp_path / "main.cf"))
    assert any("chrooted" in one["text"] for one in bad(found, "postfix"))


def test_a_socket_that_another_program_has_is_found(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, found = doctor({"milter": {"socket": f"inet:{port}@127.0.0.1"}})
    assert code == 1
    assert "belongs to another program" in bad(found, "socket")[0]["text"]


def test_a_mail_server_that_takes_no_reports_is_found(doctor: Doctor) -> None:
    closed = REPORTING | {"smtp": f"127.0.0.1:{free_port()}"}
    code, found = doctor({"reporting": closed})
    assert code == 1
    (wrong,) = bad(found, "report path")
    assert "refused" in wrong["text"]


@pytest.mark.parametrize(
    ("server", "said", "remedy"),
    [
        (("smart.example:587", "none"), "", "config set reporting.smtp_tls verify"),
        (
            ("smart.example:465", "none"),
            "closed: timed out",
            "config set reporting.smtp_tls verify",
        ),
        (("smart.example:587", "verify"), "x:587: 535 5.7.8 no", "smtp-password"),
        (("smart.example:587", "verify"), "certificate has expired", "-starttls smtp -connect"),
        (("smart.example:465", "verify"), "timed out", "openssl s_client -connect"),
    ],
)
def test_no_remedy_for_a_smarthost_gives_the_password_away(
    doctor: Doctor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    server: tuple[str, str],
    said: str,
    remedy: str,
) -> None:
    smtp, tls = server
    password = tmp_path / "smtp-password"
    password.write_text("secret\n")
    password.chmod(0o640)
    login = {"smtp_user": "u", "smtp_password_file": str(password)}
    monkeypatch.setattr("dmarc_milter.cli.doctor.greeting", lambda _: said)
    code, found = doctor({"reporting": REPORTING | login | {"smtp": smtp, "smtp_tls": tls}})
    assert code == (1 if said else 0)
    (wrong,) = bad(found, "report path")
    assert remedy in wrong["remedy"]
    assert "opportunistic" not in wrong["remedy"]


@pytest.mark.parametrize(
    ("changed", "words", "remedy"),
    [
        ({"email": "dmarc@bare.example"}, "no SPF record", "publish bare.example. TXT"),
        ({"email": "dmarc@bare.example"}, "bare.example:", "publish _dmarc.bare.example. TXT"),
        ({"dkim_selector": "other"}, "other._domainkey", "publish other._domainkey"),
        (
            {"dkim_selector": SENDER.key_name.split(".")[0]},
            "another key",
            "config set reporting.dkim_selector dmarc",
        ),
        ({"dkim_domain": "other.example"}, "does not align", "config set reporting.dkim_domain"),
    ],
)
def test_a_sender_of_reports_whom_nobody_believes_is_found(
    doctor: Doctor, tmp_path: Path, changed: dict[str, str], words: str, remedy: str
) -> None:
    key = tmp_path / "key.pem"
    private = rsa.generate_private_key(65537, 2048)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    signed = {"dkim_domain": "reports.example", "dkim_selector": "s", "dkim_key_file": str(key)}
    _, found = doctor({"reporting": REPORTING | signed | changed})
    wrong = bad(found, "reports")
    assert any(words in one["text"] and remedy in one["remedy"] for one in wrong), wrong


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as another account")


@needs_root
def test_what_the_service_account_cannot_read_or_write_is_found(
    doctor: Doctor, tmp_path: Path
) -> None:
    """As that account sees it, not as root does."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    password, state = tmp_path / "password", tmp_path / "state"
    password.write_text("secret")
    password.chmod(0o600)
    state.mkdir(mode=0o700)
    code, found = doctor(
        {
            "milter": {"user": "nobody"},
            "store": {"url": f"sqlite:///{state}/reports.db", "password_file": str(password)},
        }
    )
    assert code == 1
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    assert any(
        one["remedy"] == f"chgrp {group} {password} && chmod g+r {password}"
        for one in bad(found, "account")
    )
    for what in ("spool", "store"):
        assert any(one["remedy"] == f"chown -h nobody {state}" for one in bad(found, what))
    assert os.geteuid() == 0


def test_an_account_that_is_not_there_is_found(doctor: Doctor) -> None:
    code, found = doctor({"milter": {"user": "nobody-here"}})
    assert code == 1
    assert "adduser" in bad(found, "account")[0]["remedy"]


def test_a_file_of_another_program_in_the_place_of_the_store_is_found(
    doctor: Doctor, tmp_path: Path
) -> None:
    (tmp_path / "reports.db").write_text("a shopping list\n" * 100)
    code, found = doctor()
    assert code == 1
    assert bad(found, "store")
    assert (tmp_path / "reports.db").read_text().startswith("a shopping list")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_what_helps_a_store_is_said_once(doctor: Doctor, address: str) -> None:
    """By a command for a database of this host, in words for another's."""
    url = f"postgresql://dmarc@{address}:{free_port()}/dmarc"
    (wrong,) = bad(doctor({"store": {"url": url}})[1], "store")
    assert "check that the database runs" in wrong["remedy"]
    assert "check that the database runs" not in wrong["text"]


@pytest.mark.parametrize(
    ("servers", "words"),
    [([], ["neither Postfix nor Sendmail"]), (["exim"], ["no milters"]), (["sendmail"], [])],
)
def test_a_host_without_a_mail_server_that_knows_milters_is_told(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, servers: list[str], words: list[str]
) -> None:
    monkeypatch.setattr("dmarc_milter.cli.doctor.present", lambda root: servers)
    said = [one["text"] for one in doctor()[1] if one["what"] == "mail server"]
    assert len(said) == len(words)
    assert all(each in text for each, text in zip(words, said, strict=True))


def test_a_rule_that_lets_everybody_in_is_found(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "r.toml").write_text(
        '[[policy.rules]]\naction = "accept"\ndkim = ["com"]\n'
    )
    _, found = doctor()
    assert "public suffix" in bad(found, "policy")[0]["text"]


def test_a_clock_before_the_programs_own_files_is_wrong() -> None:
    now = time.time()
    (wrong,) = host.clock(now - 1e8, now, lambda: 0)
    assert (wrong.level, bool(wrong.remedy)) == ("error", True)
    (loose,) = host.clock(now, now - 1, lambda: host.UNSYNCHRONISED)
    assert loose.level == "warning"
    (well,) = host.clock(now, now - 1, lambda: 0x2000)
    assert well.level == "ok"


def test_the_kernel_tells_whether_its_clock_is_kept() -> None:
    status = host.kernel_clock_status()
    assert status is None or 0 <= status <= 0xFFFF


def test_a_socket_outside_what_the_unit_may_write_is_found(tmp_path: Path) -> None:
    def outside(place: str) -> list[str]:
        config: Config = parse(f'[milter]\nsocket = "unix:{place}"\n')
        return [one.remedy for one in host.unit(config, (tmp_path,))]

    assert outside("/var/spool/postfix/x.sock") == []  # there is no unit
    (tmp_path / host.UNIT).write_text("[Service]\nProtectSystem=strict\n")
    assert outside("/run/dmarc-milter/milter.sock") == []
    assert "ReadWritePaths=-/var/spool/postfix/m" in outside("/var/spool/postfix/m/x.sock")[0]
    (tmp_path / f"{host.UNIT}.d").mkdir()
    (tmp_path / f"{host.UNIT}.d" / "own.conf").write_text(
        "[Service]\nReadWritePaths=-/var/spool/postfix/m\n"
    )
    assert outside("/var/spool/postfix/m/x.sock") == []


@pytest.mark.parametrize(
    ("unit", "drop_in", "expected"),
    [
        ("ListenStream=/run/dmarc-milter.sock\n", "", "unix:/run/dmarc-milter.sock"),
        (
            "ListenStream=/run/dmarc-milter.sock\n",
            "ListenStream=\nListenStream = /var/spool/postfix/d/m.sock\n",
            "unix:/var/spool/postfix/d/m.sock",
        ),
        ("ListenStream=/run/a.sock\n", "ListenStream=/run/b.sock\n", "unix:/run/a.sock"),
        ("ListenStream=127.0.0.1:8893\n", "", "inet:8893@127.0.0.1"),
        ("ListenStream=[::1]:8893\n", "", "inet6:8893@::1"),
        ("ListenStream=8893\n", "", "inet6:8893@::"),
        ("ListenStream=/run/a.sock\n", "ListenStream=\n", ""),
        ("ListenStream=nonsense\n", "", ""),
    ],
)
def test_where_systemd_listens_is_read_from_its_unit(
    tmp_path: Path, unit: str, drop_in: str, expected: str
) -> None:
    """systemd.socket(5): an empty assignment takes the ones before back; drop-ins come after."""
    own, packaged = tmp_path / "etc", tmp_path / "lib"
    (own / "dmarc-milter.socket.d").mkdir(parents=True)
    packaged.mkdir()
    assert host.listening((own, packaged)) is None
    (packaged / "dmarc-milter.socket").write_text(f"[Socket]\n{unit}")
    if drop_in:
        (own / "dmarc-milter.socket.d/mta.conf").write_text(f"[Socket]\n{drop_in}")
    found = host.listening((own, packaged))
    assert found == (socket_address(expected) if expected else None)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another group")
def test_the_group_of_the_socket_s_folder_counts(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the set-group-ID bit the socket gets it; without, it is the service's own."""
    mta = pwd.getpwnam("daemon")  # plays the mail server's account: it is on every machine
    monkeypatch.setattr(account, "MTA_ACCOUNTS", (mta.pw_name,))
    folder = tmp_path / "milter"
    folder.mkdir()
    os.chown(folder, 0, mta.pw_gid)
    socket_here = {
        "milter": {"socket": f"unix:{folder}/m.sock", "socket_group": "", "user": "nobody"}
    }

    def may_not_connect() -> bool:
        _, found = doctor(socket_here)
        return any("daemon, who must connect" in one["text"] for one in bad(found, "socket"))

    folder.chmod(0o750)
    assert may_not_connect()
    folder.chmod(0o2750)
    assert not may_not_connect()


def test_the_lines_say_what_to_do(
    tmp_path: Path, dns: DnsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        f'[dns]\nnameservers = ["{dns.nameserver}"]\n[milter]\nuser = "nobody-here"\n'
        f'[store]\nurl = "sqlite:///{tmp_path}/r.db"\n'
    )
    assert main(["doctor", "--config", str(config)]) == 1
    lines = capsys.readouterr().out.split("\n")
    at = next(n for n, line in enumerate(lines) if line.startswith("fail   account: "))
    assert lines[at + 1] == "       -> adduser --system --group --no-create-home nobody-here"
    assert "to mend" in lines[-2]
