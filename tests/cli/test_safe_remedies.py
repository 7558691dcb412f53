"""What `doctor` must not say: commands that harm another instance, another program, or what may be
good. Nothing printed is better than that."""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dmarc_milter.checks import (
    account,
    configuration,
    folders,
    host,
    limits,
    mail_server,
    remedies,
    report_sender,
    service,
    storage,
)
from dmarc_milter.cli import doctor
from dmarc_milter.cli.setup import unix_socket
from dmarc_milter.config import Config, parse
from dmarc_milter.config.checks import socket_address
from dmarc_milter.config.instance import FIRST, instance
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.core.lint import survey
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.report.destination import Authorization, Permission
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.process import daemons
from dmarc_milter.web import health
from fakes.daemon import free_port, toml
from fakes.dns_zone import Zone
from fakes.signer import private_key, public_text

SECOND_FILE = Path("/etc/dmarc-milter-second/dmarc-milter.toml")
SECOND = instance(SECOND_FILE)
ANOTHER = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other accounts")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """One that every account may enter, as the folders above a real installation."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path


def config(**tables: dict[str, Any]) -> Config:
    return parse(toml(tables))


def doctor_of(file: Path, *words: str) -> list[Finding]:
    """What it finds with this file, as it prints it."""
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    arguments = parser.parse_args(["--config", str(file), *words])
    return [doctor._with_remedy(one, arguments) for one in doctor._diagnosis(arguments)]


@pytest.mark.parametrize(
    ("file", "is_asked"),
    [("/etc/dmarc-milter/dmarc-milter.toml", True), (str(SECOND_FILE), False), ("/srv/c", False)],
)
def test_the_host_s_postfix_is_looked_at_for_the_default_configuration_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, is_asked: bool
) -> None:
    main_cf, asked = tmp_path / "main.cf", []
    main_cf.write_text("")

    def found(*_: object, **told: Any) -> Iterator[Finding]:
        asked.append(told["postfix"])
        yield from ()

    monkeypatch.setattr(doctor, "MAIN_CF", main_cf)
    monkeypatch.setattr(doctor, "load", lambda _: Config())
    monkeypatch.setattr(doctor, "findings", found)
    said = doctor_of(Path(file))
    assert asked == [main_cf if is_asked else None]
    assert any("--postfix" in one.text for one in said) is not is_asked
    asked.clear()
    doctor_of(Path(file), "--postfix", "/srv/main.cf")
    assert asked == [Path("/srv/main.cf")]


def test_the_host_s_sendmail_is_the_first_instance_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_server, "find", lambda _: "sendmail")
    cf = tmp_path / "sendmail.cf"
    cf.write_text("O InputMailFilters=\n")
    assert [*mail_server.sendmail_filters(Config(), cf, given=False, root=tmp_path)]
    assert not [*mail_server.sendmail_filters(Config(), cf, given=False, root=tmp_path, of=SECOND)]
    assert [*mail_server.sendmail_filters(Config(), cf, given=True, root=tmp_path, of=SECOND)]


def test_an_instance_s_socket_is_judged_by_its_own_unit(tmp_path: Path) -> None:
    """The first unit's grants are not its own, and what it lacks goes into no other's drop-ins."""

    def outside(place: str, of: Any = SECOND) -> list[str]:
        told = config(milter={"socket": f"unix:{place}"})
        return [one.remedy for one in host.unit(told, (tmp_path,), of=of)]

    (tmp_path / "dmarc-milter.service").write_text(
        "[Service]\nProtectSystem=strict\nReadWritePaths=/srv/first\n"
    )
    template = tmp_path / "dmarc-milter@.service"
    template.write_text("[Service]\nProtectSystem=strict\n")
    assert outside("/run/dmarc-milter-second/milter.sock") == []
    assert outside("/var/lib/dmarc-milter-second/milter.sock") == []
    assert outside("/run/dmarc-milter-second/milter.sock", FIRST) != []
    for place in ("/run/dmarc-milter/milter.sock", "/srv/first/milter.sock"):
        (said,) = outside(place)
        assert f"{tmp_path}/dmarc-milter@second.service.d/" in said
        assert said.endswith("systemctl restart dmarc-milter@second")
        assert "dmarc-milter.service" not in said
    (tmp_path / "dmarc-milter@.service.d").mkdir()
    (tmp_path / "dmarc-milter@.service.d/a.conf").write_text("[Service]\nReadWritePaths=/srv/a\n")
    assert outside("/srv/a/m.sock") == []
    template.unlink()
    assert outside("/srv/b/m.sock") == [], "its unit is not there, whatever the first's says"


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("/run/mine", "ReadWritePaths=-/run/mine"),
        ("/srv/a b/50%", 'ReadWritePaths="-/srv/a b/50%%"'),
    ],
)
def test_a_folder_that_goes_at_boot_keeps_no_unit_down(
    tmp_path: Path, folder: str, line: str
) -> None:
    """systemd.exec(5): without "-" a unit whose folder is missing fails (226/NAMESPACE)."""
    (tmp_path / "dmarc-milter.service").write_text("[Service]\nProtectSystem=strict\n")
    place = Path(folder) / "m.sock"
    (found,) = host.unit_may_write(place, (tmp_path,))
    assert line in shlex.split(found.remedy)
    drop_ins = tmp_path / "dmarc-milter.service.d"
    drop_ins.mkdir()
    (drop_ins / "a.conf").write_text(f"[Service]\n{line}\n")
    assert not [*host.unit_may_write(place, (tmp_path,))], "what was written is understood"


def test_the_folders_of_the_system_are_not_opened_to_the_service(tmp_path: Path) -> None:
    (tmp_path / "dmarc-milter.service").write_text("[Service]\nProtectSystem=strict\n")
    (found,) = host.unit_may_write(Path("/run/m.sock"), (tmp_path,))
    assert found.remedy.endswith("config set milter.socket unix:/run/dmarc-milter/milter.sock")


def test_commands_name_the_unit_of_the_instance() -> None:
    """Wherever `systemctl` stands in them; other units and other words stay."""
    words = (
        "dmarc-milter setup --apply && systemctl restart dmarc-milter && postfix reload;"
        " systemctl disable --now dmarc-milter.socket && systemctl start dmarc-milter-web"
        " && systemctl enable --now dmarc-milter"
    )
    said = remedies.placed(words, config=SECOND_FILE)
    assert re.findall(r"systemctl [a-z]+ (\S+)", said.replace("--now ", "")) == [
        "dmarc-milter@second", "dmarc-milter.socket", "dmarc-milter-web", "dmarc-milter@second",
    ]  # fmt: skip
    other = remedies.placed(words, config=Path("/srv/c.toml"))
    assert re.findall(r"systemctl [a-z -]*\b(dmarc-milter\S*)", other) == [
        "dmarc-milter.socket", "dmarc-milter-web"
    ], "no unit has this file: the first instance is left alone"  # fmt: skip


@pytest.mark.parametrize("file", [SECOND_FILE, Path("/srv/x.toml")])
def test_the_dashboard_of_an_instance_names_its_configuration(file: Path) -> None:
    told = config(web={"listen": "0.0.0.0:8896"}, milter={"deadline": 1.0})
    said = [one.remedy for one in health.findings(told, file) if "config set" in one.remedy]
    assert len(said) >= 2
    assert all(f"dmarc-milter --config {file} config set" in one for one in said)
    assert "/etc/dmarc-milter/" not in str(said)
    first = [one.remedy for one in health.findings(told) if "config set" in one.remedy]
    assert "--config" not in str(first)


def test_setup_of_an_instance_leaves_the_first_s_places_alone() -> None:
    known = unix_socket.known_sockets(Config(), SECOND)
    assert not [one for one in known if "/dmarc-milter/" in one.path]
    assert unix_socket.for_sendmail(SECOND).socket.path == "/run/dmarc-milter-second/milter.sock"
    steps = unix_socket.describe(unix_socket.for_sendmail(SECOND), Config(), SECOND, is_shown=False)
    assert steps == ["systemctl restart dmarc-milter@second"]


def test_the_limits_are_those_of_the_instance_s_own_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid, words, files in (
        (7, "dmarc-milter\0serve\0--no-jobs\0", 100),
        (8, f"python\0dmarc-milter\0--config\0{SECOND_FILE}\0serve\0", 200),
    ):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "comm").write_text("dmarc-worker\n")
        (folder / "cmdline").write_text(words)
        (folder / "limits").write_text(f"Max open files            {files}  {files}  files\n")

    def files_of(path: Path) -> int | None:
        found = limits.of_service(path, tmp_path)
        return found.descriptors if found else None

    assert files_of(FIRST.config) == 100
    assert files_of(SECOND_FILE) == 200
    assert files_of(Path("/etc/dmarc-milter-third/dmarc-milter.toml")) is None
    (tmp_path / "7/environ").write_text("A=b\0DMARC_MILTER_CONFIG=/srv/c.toml\0")
    assert daemons.serves(7, Path("/srv/c.toml"), tmp_path)
    assert not daemons.serves(7, FIRST.config, tmp_path)


def test_a_token_lies_beside_its_configuration_and_takes_no_other_s_place(tmp_path: Path) -> None:
    told = config(web={"listen": "0.0.0.0:8896"})
    file = tmp_path / "dmarc-milter-second/dmarc-milter.toml"
    file.parent.mkdir()
    (found,) = configuration.exposed_listeners(told, instance(file))
    token = file.with_name("web-token")
    assert str(token) in found.remedy
    assert "/etc/dmarc-milter" not in found.remedy
    token.write_text("what somebody uses already")
    (found,) = configuration.exposed_listeners(told, instance(file))
    assert found.remedy == f"dmarc-milter config set web.token_file {token}"


@pytest.mark.parametrize("make", [service.new_key, service.new_token, service.new_file])
def test_nothing_is_made_over_a_file_that_is_there(tmp_path: Path, make: Any) -> None:
    file = tmp_path / "a file"
    file.write_text("good")
    done = subprocess.run(["/bin/sh", "-c", make(str(file), Config())], check=False)
    assert (done.returncode, file.read_text()) == (1, "good")


def reports(**options: Any) -> Config:
    return config(reporting={"org_name": "E", "email": "a@e.example", **options})


SIGNED = {"dkim_domain": "e.example", "dkim_selector": "s"}


def test_a_fault_of_the_password_touches_no_key(tmp_path: Path) -> None:
    password, key = tmp_path / "password", tmp_path / "key"
    key.write_text(ANOTHER)
    told = reports(**SIGNED, smtp_password_file=str(password), dkim_key_file=str(key))
    said = {one.remedy for one in report_sender._unusable_secrets(told)}
    assert not [one for one in said if str(key) in one]
    assert any(str(password) in one for one in said)
    (only,) = report_sender._unusable_secrets(reports(smtp_password_file=str(password)))
    assert "dkim" not in only.remedy


@pytest.mark.parametrize(
    ("content", "is_replaced"),
    [("", True), ("a shopping list", True), (ANOTHER, False)],
)
def test_a_key_is_replaced_only_where_none_is_in_the_file(
    tmp_path: Path, content: str, is_replaced: bool
) -> None:
    """An encrypted one, or of another kind, is a key; and what was moved aside stays."""
    key, aside = tmp_path / "my key", tmp_path / "my key.unusable"
    key.write_text(content)
    aside.write_text("the first")
    told = reports(**SIGNED, dkim_key_file=str(key))
    (found,) = report_sender._unusable_secrets(told)
    assert bool(found.remedy) is is_replaced
    if is_replaced:
        subprocess.run(["/bin/sh", "-c", found.remedy.partition(" && openssl")[0]], check=False)
        assert aside.read_text() == "the first"
        assert (tmp_path / "my key.unusable1").read_text() == content


@needs_root
def test_a_key_that_everybody_may_write_keeps_its_content(tmp_path: Path) -> None:
    key = tmp_path / "my key"
    key.write_text(ANOTHER)
    key.chmod(0o666)
    (found,) = report_sender._unusable_secrets(reports(**SIGNED, dkim_key_file=str(key)))
    assert found.remedy == f"chmod o-w '{key}'"
    one: dict[str, Any] = {"email": "b@e.example", **SIGNED, "dkim_key_file": str(key)}
    one |= {"recipient_domains": ["b.example"], "org_name": "B"}
    (found,) = report_sender._unusable_secrets(reports(identities=[one]))
    assert found.remedy == f"chmod o-w '{key}'"
    told = config(web={"listen": "127.0.0.1:8896", "token_file": str(key)})
    (found,) = configuration.exposed_listeners(told)
    assert found.remedy == f"chmod o-w '{key}'"


def test_what_this_account_may_not_read_is_left_to_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("dmarc_milter.config.root_files.read_bytes", closed)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    file = tmp_path / "file"
    told = reports(**SIGNED, dkim_key_file=str(file), smtp_password_file=str(file))
    told_web = config(web={"listen": "127.0.0.1:8896", "token_file": str(file)})
    found = [
        *report_sender._unusable_secrets(told),
        *configuration.exposed_listeners(told_web),
    ]
    assert [one.remedy for one in found] == ["sudo dmarc-milter doctor"] * 3


@pytest.mark.parametrize(
    ("url", "beside", "is_given"),
    [
        ("/var/lib/dmarc.db", "", False),
        ("/var/lib/dmarc-milter/reports.db", "", True),
        ("/var/lib/dmarc-milter/deeper/reports.db", "", True),
        ("/var/lib/dmarc-milter-second/reports.db", "", False),
        ("/etc/x.db", "", False),
        ("/srv/x.db", "", False),
        ("HERE/x.db", "", True),
        ("HERE/x.db", "x.db-wal", True),
        ("HERE/x.db", "spool.db.lock", True),
        ("HERE/x.db", "sent-reports.log", True),
        ("HERE/x.db", "x.dbase", False),
        ("HERE/deeper/x.db", "deeper", True),
        ("HERE/deeper/x.db", "deeper2", False),
        ("HERE/x.db", "dmarc-milter.toml", False),
        ("HERE/x.db", "somebody", False),
    ],
)
def test_only_folders_that_hold_nothing_else_become_the_service_s(
    tmp_path: Path, url: str, beside: str, is_given: bool
) -> None:
    path = Path(url.replace("HERE", str(tmp_path)))
    if beside:
        (tmp_path / beside).write_text("")
    told = config(store={"url": f"sqlite:///{path}"})
    folder = tmp_path if "HERE" in url else path.parent
    assert folders.may_be_given(folder, told, os.geteuid(), FIRST) is is_given


def test_the_state_folder_of_an_instance_is_its_own() -> None:
    told = config(store={"url": "sqlite:////var/lib/dmarc-milter-second/r.db"})
    place = Path("/var/lib/dmarc-milter-second")
    assert folders.may_be_given(place, told, 990, SECOND)
    assert folders.elsewhere("store", SECOND).endswith(
        "config set store.url sqlite:////var/lib/dmarc-milter-second/reports.db"
    )


def test_an_instance_that_has_the_first_s_files_is_told_of_its_own() -> None:
    """With a store elsewhere the spool is the first's where none is named."""
    told = config(store={"url": "postgresql://db.example/reports"})
    (found,) = storage.ledger(told, SECOND)
    assert found.remedy.endswith("store.spool /var/lib/dmarc-milter-second/spool.db")
    assert [one.where for one in storage.ledger(Config(), SECOND)] == ["spool", "store"]


@needs_root
def test_a_store_in_a_folder_of_others_is_named_elsewhere(tmp_path: Path) -> None:
    nobody, place = pwd.getpwnam("nobody"), tmp_path / "etc"
    place.mkdir(mode=0o700)
    (place / "dmarc-milter.toml").write_text("")
    told = config(store={"url": f"sqlite:///{place}/x.db"})
    found = [*account._unwritable(told, nobody, FIRST)]
    assert {one.remedy.split()[3] for one in found} == {"store.url", "store.spool"}
    assert not [one for one in found if "chown" in one.remedy or "chgrp" in one.remedy]


@needs_root
@pytest.mark.parametrize("made_by", ["account", "root", "hard link"])
def test_no_file_is_given_away_by_a_link_that_the_account_has_made(
    tmp_path: Path, made_by: str
) -> None:
    """Whoever took over the service owns the state folder, and root types what `doctor` says. A
    link of root's leads where root wants."""
    nobody, state, shadow = pwd.getpwnam("nobody"), tmp_path / "state", tmp_path / "shadow"
    with closing(connect(f"sqlite:///{shadow}")) as database:
        schema.upgrade(database)
    shadow.chmod(0o600)
    state.mkdir()
    store = state / "reports.db"
    if made_by == "hard link":
        store.hardlink_to(shadow)
    else:
        store.symlink_to(shadow)
        os.chown(store, 0 if made_by == "root" else nobody.pw_uid, 0, follow_symlinks=False)
    os.chown(state, nobody.pw_uid, nobody.pw_gid)
    told = config(store={"url": f"sqlite:///{store}"}, milter={"user": "nobody"})
    (found,) = account._unwritable(told, nobody, FIRST)
    if made_by == "root":
        subprocess.run(["/bin/sh", "-c", found.remedy], check=True)
        assert shadow.stat().st_uid == nobody.pw_uid
        return
    for said in (found.remedy, storage._allowed(told, "store", store, FIRST)):
        assert said.startswith("dmarc-milter config set store.url "), said


@needs_root
def test_a_link_that_appears_before_the_remedy_is_typed_is_not_followed(tmp_path: Path) -> None:
    nobody, state, shadow = pwd.getpwnam("nobody"), tmp_path / "state", tmp_path / "shadow"
    state.mkdir()
    store = state / "reports.db"
    with closing(connect(f"sqlite:///{store}")) as database:
        schema.upgrade(database)
    os.chown(state, nobody.pw_uid, nobody.pw_gid)
    told = config(store={"url": f"sqlite:///{store}"}, milter={"user": "nobody"})
    (found,) = account._unwritable(told, nobody, FIRST)
    said = [found.remedy, storage._allowed(told, "store", store, FIRST)]
    assert all("chown -h" in one for one in said)
    store.unlink()
    shadow.write_text("root's")
    for place in (store, state / "reports.db-planted"):
        place.symlink_to(shadow)
    for one in said:
        subprocess.run(["/bin/sh", "-c", one], check=False)
    assert shadow.stat().st_uid == 0


@needs_root
@pytest.mark.parametrize(("text", "owner"), [("root:x:0:0:\n" * 50, 0), ("", 1)])
def test_a_file_of_another_program_or_account_is_not_given_away(
    tmp_path: Path, text: str, owner: int
) -> None:
    nobody, place = pwd.getpwnam("nobody"), tmp_path / "srv"
    place.mkdir()
    place.chmod(0o777)
    (place / "somebody").write_text("else's")
    store = place / "r.db"
    store.write_text(text)
    store.chmod(0o600)
    os.chown(store, owner, owner)
    told = config(
        store={"url": f"sqlite:///{store}", "spool": f"{place}/s.db"}, milter={"user": "nobody"}
    )
    found = [*account._unwritable(told, nobody, FIRST), *storage.ledger(told)]
    said = [one.remedy for one in found if one.where == "store" and one.level == "error"]
    assert said
    assert all(one.startswith("dmarc-milter config set store.url ") for one in said), said


@needs_root
@pytest.mark.parametrize("what", ["a link", "its own folder"])
def test_no_secret_is_opened_that_the_account_has_named(tmp_path: Path, what: str) -> None:
    """A link from where the password was leads to a key of the host, which root would copy, or
    give to the account's group; so would one that comes before the remedy is typed."""
    nobody, state, key = pwd.getpwnam("nobody"), tmp_path / "state", tmp_path / "ssh_host_key"
    state.mkdir()
    os.chown(state, nobody.pw_uid, nobody.pw_gid)
    password = state / "password"
    for place in (key, password):
        place.write_text("secret")
        place.chmod(0o600)
    if what == "a link":
        password.unlink()
        password.symlink_to(key)
        os.chown(password, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    told = reports(smtp_password_file=str(password))
    found = [*account._unreadable(told, tmp_path / "none", nobody)]
    assert [one.remedy for one in found if "password" in one.text] == [f"namei -l {password}"]


@needs_root
def test_the_service_s_account_itself_may_ask(tmp_path: Path) -> None:
    """What is closed to it is not taken for missing, and root's to open."""
    nobody, closed = pwd.getpwnam("nobody"), tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "password").write_text("secret")
    file = tmp_path / "c.toml"
    file.write_text("")
    told = config(
        milter={"user": "nobody"},
        store={"url": f"sqlite:///{closed}/state/r.db", "spool": f"{closed}/state/s.db"},
        reporting={"smtp_password_file": f"{closed}/password"},
    )
    with account._become(nobody):
        found = [*account.rights(told, file)]
    assert {one.remedy for one in found} == {"sudo dmarc-milter doctor"}
    assert "is not there" not in str(found)


@needs_root
@pytest.mark.parametrize(("mode", "words"), [(0o750, "socket_group daemon"), (0o2750, "chgrp ")])
def test_nobody_becomes_a_member_of_root_s_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, words: str
) -> None:
    """Neither by a folder's set-group-ID bit nor because the service runs as root."""
    monkeypatch.setattr(account, "MTA_ACCOUNTS", ("daemon",))
    folder = tmp_path / "milter"
    folder.mkdir()
    folder.chmod(mode)
    told = config(milter={"socket": f"unix:{folder}/m.sock", "socket_group": "", "user": "root"})
    (found,) = account._mta_may_connect(told, FIRST)
    assert "adduser" not in found.remedy
    assert words in found.remedy


@pytest.mark.parametrize(
    ("server", "user", "problem", "remedy"),
    [
        ("mx.example:587", "u", "certificate verify failed", "openssl s_client "),
        ("mx.example:587", "u", "the server does not offer STARTTLS", "openssl s_client "),
        ("mx.example:25", "", "certificate verify failed", "smtp_tls opportunistic"),
        ("localhost:25", "u", "certificate verify failed", "smtp_tls opportunistic"),
        ("localhost:25", "u", "the server does not offer STARTTLS", "smtp_tls none"),
        ("localhost:25", "", "the server does not offer STARTTLS", "smtp_tls none"),
    ],
)
def test_a_password_is_not_sent_to_whoever_answers(
    server: str, user: str, problem: str, remedy: str
) -> None:
    """Who stands between made the certificate, or took STARTTLS out of the answer."""
    told = reports(smtp=server, smtp_user=user, smtp_tls="verify")
    host_name, _, port = server.partition(":")
    assert remedy in doctor._way_in(told, host_name, int(port), f"{server}: {problem}")


@pytest.mark.parametrize(
    ("server", "tls", "problem", "remedy"),
    [
        ("smart.example:465", "none", "timed out", "reporting.smtp_tls verify"),
        ("smart.example:465", "none", "closed the connection", "reporting.smtp_tls verify"),
        ("localhost:465", "none", "timed out", "reporting.smtp_tls opportunistic"),
        ("smart.example:25", "none", "timed out", "-starttls smtp -connect smart.example:25"),
        ("smart.example:25", "verify", "refused", "-starttls smtp -connect smart.example:25"),
        ("localhost:587", "none", "refused", "reporting.smtp localhost:25"),
    ],
)
def test_a_port_where_tls_begins_at_once_is_spoken_to_by_tls(
    server: str, tls: str, problem: str, remedy: str
) -> None:
    """`none` is none at 465 too (RFC 8314 3.3): the server waits for TLS and we for its words."""
    host_name, _, port = server.partition(":")
    told = reports(smtp=server, smtp_tls=tls)
    assert remedy in doctor._way_in(told, host_name, int(port), f"{server}: {problem}")


INCLUDED = " ".join(f"include:i{number}.example" for number in range(6))


@pytest.mark.parametrize(
    ("texts", "published"),
    [
        (("v=spf1 include:a.example -all", "v=spf1 mx ~all", "x"), "include:a.example mx ~all"),
        (("v=spf1 mx", "v=spf1 mx +all"), "mx ~all"),
        (("v=spf1 mx -all", "v=spf1 a all"), "mx a ~all"),
        (("v=spf1 mx -all", "V=SPF1 +a ?ALL"), "mx +a ?all"),
        (("v=spf1 mx -all a", "v=spf1 mx"), "mx -all"),
        (("v=spf1 mx", "v=spf1 redirect=a.example"), ""),
        (("v=spf1 mx", "v=spf1 a exp=why.a.example -all"), ""),
        (("v=spf1 mx", 'v=spf1 exists:"'), ""),
        (("v=spf1 include:gone.example -all",), ""),
        # What one record refuses, or leaves open, comes before what the other lets send.
        (("v=spf1 -mx ?all", "v=spf1 mx -all"), ""),
        (("v=spf1 mx", "v=spf1 ~a"), ""),
        (("v=spf1 ?ip4:192.0.2.1", "v=spf1 ip4:192.0.2.0/24"), ""),
        # Errors: they would let nobody send.
        (("v=spf1 mx", "v=spf1 ip4:192.0.2 -all"), ""),
        (("v=spf1 mx", "v=spf1 include:gone.example -all"), ""),
        (("v=spf1 mx", "v=spf1 include:fails.example -all"), ""),
        ((f"v=spf1 {INCLUDED}", "v=spf1 mx a include:a.example exists:x.e exists:e.example"), ""),
        ((f"v=spf1 {INCLUDED}", "v=spf1 mx a include:a.example exists:x.e exists:y.e"), ""),
    ],
)
def test_an_spf_record_that_others_send_by_is_not_replaced(
    texts: tuple[str, ...], published: str
) -> None:
    """Several become one that lets the same hosts send (RFC 7208 3.2); one that is at fault is
    shown by `domain`."""
    there = {f"i{number}.example": {"TXT": ["v=spf1 -all"]} for number in range(6)}
    there["a.example"] = {"TXT": ["v=spf1 -all"]}
    own = {"TXT": texts, "MX": [(10, "e.example")], "A": ["192.0.2.9"]}
    zone = Zone({"e.example": own, **there}, failing=["fails.example"])
    assert report_sender._merged_spf(Domain("e.example"), zone) == (
        f"v=spf1 {published}" if published else ""
    )


@needs_root
def test_a_folder_that_became_a_link_is_not_given_away(tmp_path: Path) -> None:
    """The account may own what is above it. A link of root's is resolved before."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    assert account._opened("g", link) == f"chgrp -h g {real} && chmod g+x {real}"
    os.chown(link, 1, 1, follow_symlinks=False)
    assert account._opened("g", link) == f"chgrp -h g {link} && chmod g+x {link}"


@needs_root
def test_secrets_of_one_name_are_copied_to_two_files(tmp_path: Path) -> None:
    """And another program's key stays in its group."""
    nobody, file = pwd.getpwnam("nobody"), tmp_path / "dmarc-milter/dmarc-milter.toml"
    for name in ("dmarc-milter", "a", "b"):
        (tmp_path / name).mkdir(mode=0o700)
    for name in ("a", "b"):
        (tmp_path / name / "password").write_text(name)
    (file.parent / "store-password").write_text("an older one")
    key = tmp_path / "key"
    key.write_text("key")
    key.chmod(0o640)
    os.chown(key, 1, 1)
    told = config(
        store={"password_file": f"{tmp_path}/a/password"},
        reporting={"smtp_password_file": f"{tmp_path}/b/password", "dkim_key_file": str(key)},
    )
    names = ("store.password_file", "reporting.smtp_password_file", "reporting.dkim_key_file")
    for name in names:
        said = account._readable(told, file, nobody, name)
        subprocess.run(["/bin/sh", "-c", said.partition(" && dmarc-milter")[0]], check=True)
    assert (file.parent / "store-password").read_text() == "an older one"
    assert (file.parent / "store-password1").read_text() == "a"
    assert (file.parent / "reporting-smtp-password").read_text() == "b"
    assert (file.parent / "reporting-dkim-key").read_text() == "key"
    assert (key.stat().st_uid, key.stat().st_gid) == (1, 1)


@needs_root
def test_a_secret_in_the_folder_of_the_configuration_stays_where_it_is(tmp_path: Path) -> None:
    nobody, file = pwd.getpwnam("nobody"), tmp_path / "dmarc-milter/dmarc-milter.toml"
    file.parent.mkdir(mode=0o700)
    key = file.with_name("key")
    key.write_text("key")
    told = reports(**SIGNED, dkim_key_file=str(key))
    said = account._readable(told, file, nobody, "reporting.dkim_key_file")
    assert "install" not in said
    assert f"chmod g+x {file.parent}" in said


@needs_root
def test_a_home_that_holds_a_configuration_stays_closed(tmp_path: Path) -> None:
    home = tmp_path / "root"
    home.mkdir(mode=0o700)
    file = home / "c.toml"
    file.write_text("")
    said = account._readable(Config(), file, pwd.getpwnam("nobody"), "")
    assert said == f"namei -l {file}"


@pytest.mark.parametrize("ending", ["", ", its group being the daemon's", ", or use password_file"])
def test_rights_are_changed_of_the_whole_path(tmp_path: Path, ending: str) -> None:
    (tmp_path / "my").write_text("")
    token = tmp_path / "my keys, old/token"
    problem = f"{token} can be read by everybody: chmod 640 {token}{ending}"
    assert "chmod" not in doctor._editor(tmp_path / "my", problem)
    token.parent.mkdir()
    token.write_text("")
    assert doctor._editor(tmp_path / "my", problem) == f"chmod 640 '{token}'"


def test_a_folder_that_is_meant_for_everybody_stays_so(tmp_path: Path) -> None:
    """/tmp with `chmod o-w` would stop other programs."""
    place = tmp_path / "tmp/m.sock"
    place.parent.mkdir()
    said = {}
    for mode in (0o1777, 0o777):
        place.parent.chmod(mode)
        (found,) = configuration._unix_socket(Config(), place, FIRST)
        said[mode] = found.remedy
    assert said[0o1777].endswith("config set milter.socket unix:/run/dmarc-milter/milter.sock")
    assert said[0o777] == f"chmod o-w {place.parent}"


def test_another_socket_is_another_one(tmp_path: Path) -> None:
    address = socket_address(f"unix:{tmp_path}/dmarc-milter.sock")
    assert configuration._another(address, FIRST) == f"unix:{tmp_path}/dmarc-milter1.sock"
    inet = socket_address("inet:8895@127.0.0.1")
    assert ":8893@" not in configuration._another(inet, SECOND)


@pytest.mark.parametrize(
    ("permission", "reason", "remedy"),
    [
        (Permission.REFUSED, "the host has neither MX nor address", "publish e.example. MX 10 "),
        (Permission.REFUSED, "the host does not exist", "publish e.example. MX 10 "),
        (Permission.REFUSED, "the host has a null MX: it takes no mail", "dmarc-milter domain "),
        (Permission.LATER, "the DNS did not answer for the host's MX", "dmarc-milter domain "),
    ],
)
def test_a_record_is_published_only_where_none_is(
    monkeypatch: pytest.MonkeyPatch, permission: Permission, reason: str, remedy: str
) -> None:
    answer = Authorization(permission, reason)
    monkeypatch.setattr(report_sender, "takes_mail", lambda *_: answer)

    surveyed: Any = SimpleNamespace(spf=SimpleNamespace(status="pass"))
    resolver: Any = None
    sender = Domain("e.example")
    found = [*report_sender._envelope(reports(), sender, surveyed, resolver)]
    assert [one.remedy.startswith(remedy) for one in found if "bounces" in one.text] == [True]


@needs_root
def test_what_an_ordinary_account_may_not_see_is_left_to_root(tmp_path: Path) -> None:
    """The packaged folder of the configuration, and a ledger's, are closed to it."""
    closed, nobody = tmp_path / "closed", pwd.getpwnam("nobody")
    closed.mkdir(mode=0o700)
    file = closed / "c.toml"
    file.write_text("")
    told = config(store={"url": f"sqlite:///{closed}/ledger/r.db"})
    place = closed / "run/m.sock"
    with account._become(nobody):
        assert doctor._editor(file, f"{file}: Permission denied") == "sudo dmarc-milter doctor"
        said = {one.remedy for one in storage.ledger(told)}
        said |= {one.remedy for one in configuration._unix_socket(Config(), place, FIRST)}
    assert said == {"sudo dmarc-milter doctor"}


PEM = private_key("ours").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
OTHER_KEY = f"v=DKIM1; k=rsa; p={public_text(private_key('theirs'))}"


def zone(texts: dict[str, list[str]]) -> Zone:
    return Zone({name: {"TXT": some} for name, some in texts.items() if some})


@pytest.mark.parametrize(
    ("published", "remedy"),
    [
        ({}, "publish s._domainkey.e.example. TXT"),
        ({"s": "v=DKIM1; k=rsa; p="}, "dmarc-milter config set reporting.dkim_selector dmarc"),
        ({"s": "v=DKIM1; k=rsa; p=AAAA"}, "dmarc-milter config set reporting.dkim_selector dmarc"),
        ({"s": OTHER_KEY}, "dmarc-milter config set reporting.dkim_selector dmarc"),
        (
            {"s": OTHER_KEY, "dmarc": OTHER_KEY},
            "dmarc-milter config set reporting.dkim_selector dmarc-reports",
        ),
        ({"s": "v=spf1 -all"}, "publish s._domainkey.e.example. TXT"),  # a wildcard's
    ],
)
def test_a_key_that_is_published_stays(published: dict[str, str], remedy: str) -> None:
    """Another program may sign by it; one that was revoked stays revoked (RFC 6376 3.6.1)."""
    dns = zone({f"{name}._domainkey.e.example": [text] for name, text in published.items()})
    found = report_sender._published_key("s._domainkey.e.example", PEM, dns)
    assert (found.level, found.remedy.startswith(remedy)) == ("error", True), found


@pytest.mark.parametrize(
    ("texts", "remedy", "said"),
    [
        ([], "publish _dmarc.e.example. TXT", "no policy"),
        (["v=DMARC1 p=reject"], "dmarc-milter domain e.example", "semicolon is missing"),
        (["v=dmarc1; p=reject"], "dmarc-milter domain e.example", "in capitals"),
    ],
)
def test_a_dmarc_record_with_a_mistake_gets_no_second_beside_it(
    texts: list[str], remedy: str, said: str
) -> None:
    found = [
        *report_sender._published(survey(Domain("e.example"), zone({"_dmarc.e.example": texts})))
    ]
    assert found[0].remedy.startswith(remedy)
    assert said in found[0].text


@pytest.mark.parametrize(
    ("texts", "remedy"),
    [
        (["site-verification=1"], "publish e.example. TXT"),
        (["v=spf 1 include:mail.example -all"], "dmarc-milter domain e.example"),
        (["spf2.0/pra include:mail.example -all"], "dmarc-milter domain e.example"),
    ],
)
def test_an_spf_record_with_a_mistake_gets_no_second_beside_it(
    texts: list[str], remedy: str
) -> None:
    dns = zone({"e.example": texts})
    sender = Domain("e.example")
    found = [*report_sender._envelope(reports(), sender, survey(sender, dns), dns)]
    assert next(one.remedy for one in found if "SPF" in one.text).startswith(remedy)


@needs_root
@pytest.mark.parametrize(
    ("mode", "group", "remedy"),
    [
        (0o660, "nogroup", ""),
        (0o600, "nogroup", "systemctl restart "),
        (0o660, "root", "systemctl restart "),
    ],
)
def test_a_socket_that_does_not_let_the_mail_server_in_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: str, remedy: str
) -> None:
    """The rights of the socket that is there: Postfix says "Permission denied"."""
    monkeypatch.setattr(account, "MTA_ACCOUNTS", ("nobody",))
    tmp_path.chmod(0o755)
    monkeypatch.setattr(account, "_may", lambda mta, path, mode: may(mta, path))
    path = tmp_path / "m.sock"

    def may(mta: pwd.struct_passwd, path: str | Path) -> bool:
        """What access(2) would say; the test's own folder is closed to others."""
        held = os.stat(path)
        return bool(held.st_mode & 0o020) and held.st_gid in account._groups(mta)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(mode)
        shutil.chown(path, group=group)
        told = config(milter={"socket": f"unix:{path}", "socket_group": "nogroup"})
        found = [*account._mta_may_connect(told, FIRST)]
    assert bool(found) is bool(remedy)
    assert all(remedy in one.remedy and "may not connect" in one.text for one in found)


def test_a_clock_is_kept_by_what_is_installed(tmp_path: Path) -> None:
    """timedatectl alone says "NTP not supported"."""
    assert "chrony" in service.synchronise(lambda _: "/usr/bin/timedatectl", (tmp_path,))
    (tmp_path / "80-systemd-timesync.list").touch()
    assert "set-ntp" in service.synchronise(lambda _: "/usr/bin/timedatectl", (tmp_path,))


def test_a_replica_that_does_not_answer_is_found() -> None:
    """Each question to it costs a connection that fails first."""
    away = f"postgresql://dmarc@127.0.0.1:{free_port()}/dmarc"
    told = config(store={"url": away, "read_url": away})
    found = [one for one in storage.ledger(told) if "read_url" in one.text]
    assert [(one.level, one.where) for one in found] == [("warning", "store")]
    assert found[0].remedy.endswith("config set store.read_url ''")
    assert not [
        one for one in storage.ledger(config(store={"url": away})) if "read_url" in one.text
    ]
