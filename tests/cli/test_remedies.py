"""`doctor` mends what it finds: each remedy that it prints is run as it stands by a shell, or its
record is published as it stands, and the fault is gone. Programs that would change the machine are
played by scripts."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.checks import account, host, limits, mail_server, service
from dmarc_milter.cli import doctor
from dmarc_milter.cli.main import main
from dmarc_milter.config import instance, load
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.mta.postfix import read
from fakes import report_sender
from fakes.daemon import free_port, toml
from fakes.dns_server import DnsServer
from fakes.report_sender import SENDER
from fakes.smtp_sink import smtp_sink
from live.place import UNPACKED, give_up, library_path, private_folder

ROUNDS = 3
"""So often an administrator runs `doctor` and does what it says: what a remedy brings to light is
mended in the next."""
ZONE: dict[str, Any] = report_sender.ZONE | {"com": {"NS": ["a.example.com"]}}
Tables = dict[str, dict[str, Any]]
Fault = tuple[str, str]
"""What a finding is about, and words of it."""
SCRIPTS = {
    # What each does to the machine that the test plays.
    "dmarc-milter": 'exec {python} -m dmarc_milter "$@"',
    "postfix": 'test "$3" = reload || test "$1" = reload',
    "systemctl": 'echo "systemctl $*" >> {log}',
    "timedatectl": "touch {folder}/synchronised",
    "apt-get": 'echo "apt-get $*" >> {log}',
    "sudo": 'exec "$@"',
    "adduser": 'for last; do :; done; test "$1" = --system || echo "$1 $last" >> {folder}/members',
    "addgroup": "for last; do :; done; echo $last >> {folder}/groups",
    "my-editor": '{python} {folder}/editor.py "$@"',
}
EDITOR = '''\
"""Takes the line that it is opened at out of the file."""
import sys
*at, file = sys.argv[1:]
lines = open(file).read().split("\\n")
if at:
    first = last = int(at[0].lstrip("+")) - 1
    if lines[first].startswith("[["):
        while last + 1 < len(lines) and lines[last + 1] and lines[last + 1][0] != "[":
            last += 1
    del lines[first : last + 1]
else:
    lines.append("a password")
open(file, "w").write("\\n".join(lines))
'''


class Machine:
    """A host with this program: its configuration, mail server's files, DNS and programs."""

    def __init__(
        self, folder: Path, dns: DnsServer, capsys: pytest.CaptureFixture[str], sink: int
    ) -> None:
        self.folder, self.dns, self._capsys = folder, dns, capsys
        self.config, self.main_cf = folder / "etc/c.toml", folder / "postfix/main.cf"
        self.log = folder / "log"
        self.port = free_port()
        self.tables: Tables = {
            "milter": {"socket": f"inet:{self.port}@127.0.0.1", "user": "nobody"},
            "authentication": {
                "authserv_id": "mx.example.com",
                "sendmail_cf": str(folder / "none.cf"),
            },
            "dns": {"nameservers": [dns.nameserver], "timeout": 2.0},
            "store": {"url": f"sqlite:///{folder}/state/reports.db"},
            "reporting": {
                "org_name": "Example",
                "email": "dmarc@reports.example",
                "smtp": f"127.0.0.1:{sink}",
            },
        }
        for name in ("etc", "state", "postfix", "bin"):
            (folder / name).mkdir(mode=0o755)
        _give(folder / "state", "nobody")
        self.main_cf.write_text(f"compatibility_level = 3.6\nsmtpd_milters = {self.ours}\n")
        self.master_cf.write_text("smtp inet n - n - - smtpd\n")
        (folder / "editor.py").write_text(EDITOR)
        for name, text in SCRIPTS.items():
            self.program(name, text)
        if (postconf := UNPACKED / "usr/sbin/postconf").exists():
            libraries = library_path()["LD_LIBRARY_PATH"]
            self.program("postconf", f'LD_LIBRARY_PATH={libraries} exec {postconf.resolve()} "$@"')

    @property
    def ours(self) -> str:
        """As `setup` writes it."""
        return f"{{ inet:127.0.0.1:{self.port}, default_action=tempfail, content_timeout=300s }}"

    @property
    def master_cf(self) -> Path:
        return self.main_cf.with_name("master.cf")

    def program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        words = {"python": sys.executable, "folder": str(self.folder), "log": str(self.log)}
        for word, value in words.items():
            text = text.replace(f"{{{word}}}", value)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def write(self, tables: Tables | None = None, more: str = "") -> None:
        """The configuration with these tables changed."""
        whole = {name: table | (tables or {}).get(name, {}) for name, table in self.tables.items()}
        whole |= {name: table for name, table in (tables or {}).items() if name not in whole}
        self.config.write_text(toml(whole) + more)
        self.config.chmod(0o644)

    def doctor(self) -> list[Finding]:
        """All that is not well."""
        words = ["doctor", "--json", "--postfix", str(self.main_cf)]
        if self.sendmail_cf:
            words += ["--sendmail", str(self.sendmail_cf)]
        main(["--config", str(self.config), *words])
        found = json.loads(self._capsys.readouterr().out)["findings"]
        return [
            Finding(one["level"], one["what"], one["text"], one["remedy"])
            for one in found
            if one["level"] in ("warning", "unknown", "error")
        ]

    def obey(self, remedy: str) -> None:
        """Type it, or publish it."""
        if remedy.startswith("publish "):
            self._publish(remedy)
            return
        assert not re.search(r"(?<![\w.])/(etc|var|usr)/", remedy), "that is the test's own host"
        done = subprocess.run(
            ["/bin/sh", "-c", remedy],
            cwd="/",
            env={
                "PATH": f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "PYTHONPATH": str(Path(__file__).parents[2] / "milter"),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{remedy}\n{done.stdout}{done.stderr}"

    def _publish(self, remedy: str) -> None:
        """Strings of at most 255 bytes, as a zone file has them (RFC 1035 5.1)."""
        words = shlex.split(remedy)
        owner, rdtype, value = words[1].removesuffix("."), words[2], words[3:]
        assert all(len(piece) <= 255 for piece in value)
        record = (
            [[int(value[0]), value[1].removesuffix(".")]] if rdtype == "MX" else ["".join(value)]
        )
        self.dns.put(owner, self.dns_spec(owner) | {rdtype: record})
        self.zone[owner] = self.dns_spec(owner) | {rdtype: record}

    zone: dict[str, Any]
    sendmail_cf: Path | None = None

    def dns_spec(self, owner: str) -> dict[str, Any]:
        return dict(self.zone.get(owner, {}))

    def mend_at_once(self) -> list[Finding]:
        """What one `doctor` says is typed from top to bottom; then nothing of it is left. What it
        had said."""
        said = self.doctor()
        for one in said:
            self.obey(one.remedy)
        assert self.doctor() == []
        return said

    def mend(self, *faults: Fault) -> list[Finding]:
        """Every fault is found; after what `doctor` says has been done, nothing is left. What it
        had said."""
        said = found = self.doctor()
        for where, words in faults:
            about = [one for one in found if one.where == where and words in one.text]
            assert about, f"{where}: {words}: not in {found}"
        for _ in range(ROUNDS):
            for remedy in dict.fromkeys(one.remedy for one in found):
                self.obey(remedy)
            found = self.doctor()
            if not found:
                return said
            said = [*said, *found]
        raise AssertionError(f"still wrong: {found}")


def _give(path: Path, owner: str) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, owner, pwd.getpwnam(owner).pw_gid)


@pytest.fixture(scope="module")
def sink() -> Iterator[int]:
    with smtp_sink() as server:
        yield server.port


@pytest.fixture
def machine(
    capsys: pytest.CaptureFixture[str], sink: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    """Sound: `doctor` finds nothing there."""
    give_up("the remedies are root's to run" if os.geteuid() else "")
    monkeypatch.setenv("EDITOR", "my-editor")
    monkeypatch.setattr(account, "MTA_ACCOUNTS", ())
    monkeypatch.setattr(host, "kernel_clock_status", lambda: 0)
    monkeypatch.setattr(host.clock, "__defaults__", (lambda: 0,))
    monkeypatch.setattr(limits, "of_service", lambda _: None)
    monkeypatch.setattr(socket, "getfqdn", lambda: "mx.host.example")
    # No daemon runs in this world: tests/cli/test_doctor.py looks at that.
    monkeypatch.setattr(doctor, "NOT_RUNNING", "is not looked at here")
    with private_folder("doctor") as folder, DnsServer(ZONE) as dns:
        found = Machine(folder, dns, capsys, sink)
        found.zone = dict(ZONE)
        # A unit of this host names its file: tests/cli/test_units.py looks at that.
        monkeypatch.setattr(instance, "unit_of", lambda _: "dmarc-milter")
        monkeypatch.setattr(service, "UNITS", (folder / "units", folder / "lib-units"))
        monkeypatch.setattr(service.drop_in, "__defaults__", (service.UNITS,))
        monkeypatch.setattr(host.unit, "__defaults__", (service.UNITS,))
        root = folder / "root"
        monkeypatch.setattr(mail_server.postfix, "__defaults__", (root,))
        monkeypatch.setitem(mail_server.sendmail_filters.__kwdefaults__ or {}, "root", root)
        found.write()
        yield found


REQUIRED = os.environ.get("DMARC_MILTER_LIVE") == "required"
# Where live tests are required they run, and fail without what they need.
needs_postconf = pytest.mark.skipif(
    not (UNPACKED / "usr/sbin/postconf").exists() and not REQUIRED,
    reason="needs tools/setup_tests.sh",
)


def test_nothing_is_wrong_with_a_sound_machine(machine: Machine) -> None:
    assert machine.doctor() == []


def test_what_the_configuration_says_wrongly(machine: Machine) -> None:
    (machine.folder / "list.dat").write_text("nothing\n")
    machine.write(
        {
            "milter": {"socket": f"inet:{machine.port}@0.0.0.0", "deadline": 12.0},
            "authentication": {"authserv_id": "localhost", "trusted_networks": ["127.0.0.0/8"]},
            "metrics": {"listen": f"0.0.0.0:{free_port()}"},
            "dmarc": {"suffix_list": str(machine.folder / "list.dat")},
            "web": {
                "listen": f"0.0.0.0:{free_port()}",
                "token_file": str(machine.folder / "etc/web token"),
            },
        },
        '[[policy.rules]]\naction = "accept"\ndkim = ["com"]\n'
        '[[policy.rules]]\naction = "accept"\nspf = ["a.example"]\nexpires = "2020-01-01"\n',
    )
    machine.mend(
        ("socket", "can be reached from the network"),
        ("limits", "is not above [dns] budget"),
        ("authserv_id", "does not name this host alone"),
        ("metrics", "can be reached from the network"),
        ("suffix list", "no complete ICANN section"),
        ("web", "cannot be read"),
        ("policy", "rule 2 expired"),
    )
    config = load(machine.config)
    assert (len(Path(config.web.token_file).read_text()), config.policy.rules) == (32, [])
    assert Path(config.web.token_file).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[policy]\nenfroce = true\n", "did you mean enforce"),
        ('[milter]\nworkers = "two"\n', "a whole number"),
        ("[milter]\nworkers 2\n", "is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_mended_at_its_line(
    machine: Machine, text: str, words: str
) -> None:
    (machine.folder / "etc/conf.d").mkdir()
    (machine.folder / "etc/conf.d/50 mine.toml").write_text(text)
    (found,) = machine.mend(("configuration", words))
    assert "50 mine.toml'" in found.remedy


def test_a_configuration_that_is_missing_is_made(machine: Machine) -> None:
    machine.config = machine.folder / "new/dir/c.toml"
    (found,) = machine.doctor()
    machine.obey(found.remedy)
    assert load(machine.config)


def test_a_configuration_that_everybody_may_write(machine: Machine) -> None:
    machine.config.chmod(0o666)
    machine.mend(("configuration", "everybody can write it"))


def test_a_password_that_everybody_may_read(machine: Machine) -> None:
    password = machine.folder / "password"
    password.write_text("secret")
    password.chmod(0o644)
    machine.write({"store": {"password_file": str(password)}})
    machine.mend(("configuration", "can be read by everybody"))


def test_the_socket_of_another_program(machine: Machine) -> None:
    """Another is chosen, and then Postfix is told."""
    with socket.create_server(("127.0.0.1", machine.port)):
        machine.mend(("socket", "belongs to another program"))
    assert load(machine.config).milter.socket != f"inet:{machine.port}@127.0.0.1"


def test_a_unix_socket_in_a_wrong_place(machine: Machine) -> None:
    folder = machine.folder / "open-folder"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "m.sock").symlink_to("/nowhere")
    units = service.UNITS[1]
    units.mkdir()
    (units / service.UNIT).write_text("[Service]\nProtectSystem=strict\n")
    endpoint = f"unix:{folder}/m.sock"
    machine.main_cf.write_text(f"smtpd_milters = {{ {endpoint}, default_action=tempfail }}\n")
    machine.write({"milter": {"socket": endpoint, "socket_mode": "0666"}})
    machine.mend(
        ("socket", "is a symbolic link"),
        ("socket", "can be written by everybody"),
        ("socket", "lies outside what"),
    )
    assert "restart dmarc-milter" in machine.log.read_text()


@needs_postconf
def test_a_unix_socket_that_a_chrooted_postfix_cannot_reach(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = machine.folder / "queue"
    queue.mkdir()
    endpoint = f"unix:{machine.folder}/m.sock"
    machine.main_cf.write_text(
        "compatibility_level = 3.6\nmail_owner = nobody\n"
        f"queue_directory = {queue}\nsmtpd_milters = {endpoint}\n"
    )
    machine.master_cf.write_text("smtp inet n - y - - smtpd\n")
    machine.write({"milter": {"socket": endpoint, "socket_group": ""}})
    machine.mend(("postfix", "is chrooted"))
    assert (queue / "dmarc-milter").stat().st_mode & 0o7777 == 0o2750


def test_folders_and_files_of_the_ledger(machine: Machine) -> None:
    spool = machine.folder / "spools/a b/spool.db"
    machine.write({"store": {"spool": str(spool)}})
    state = machine.folder / "state"
    (state / "reports.db").write_text("a shopping list\n" * 100)
    os.chown(state, 0, 0)
    state.chmod(0o700)
    machine.mend(
        ("spool", "does not exist"),
        ("store", "is not a SQLite file"),
        ("store", "cannot be written by nobody"),
    )
    assert (state / "reports.db").read_text().startswith("a shopping list")


def test_a_store_of_an_earlier_program(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one in a folder that its account may not enter."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", schema.STEPS[:-1])
        with closing(connect(machine.tables["store"]["url"])) as database:
            schema.upgrade(database)
    _give(machine.folder / "state/reports.db", "nobody")
    closed = machine.folder / "closed"
    closed.mkdir(mode=0o700)
    (machine.folder / "state").rename(closed / "state")
    machine.write({"store": {"url": f"sqlite:///{closed}/state/reports.db"}})
    machine.mend(("store", "schema"), ("store", "cannot be written by nobody"))


def test_what_the_account_cannot_read(machine: Machine) -> None:
    """A secret of its own, one below a folder that is closed, and ones that are not there."""
    closed = machine.folder / "root"
    closed.mkdir(mode=0o700)
    password = closed / "smtp password"
    password.write_text("secret")
    password.chmod(0o600)
    key = machine.folder / "key.pem"
    machine.write(
        {
            "reporting": {
                "smtp_password_file": str(password),
                "dkim_domain": "reports.example",
                "dkim_selector": "new",
                "dkim_key_file": str(key),
            },
            "store": {"password_file": str(machine.folder / "not there")},
        }
    )
    machine.config.chmod(0o600)
    said = machine.mend(
        ("account", "the configuration: "),
        ("account", "[reporting] smtp_password_file"),
        ("account", "[reporting] dkim_key_file"),
        ("account", "[store] password_file"),
    )
    assert closed.stat().st_mode & 0o777 == 0o700, "what root keeps for itself stays closed"
    assert any(one.remedy.startswith("publish new._domainkey.reports.example.") for one in said)


def test_accounts_and_groups_that_are_missing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`adduser` and `addgroup` are Debian's."""
    nobody, folder = pwd.getpwnam("nobody"), machine.folder
    groups, members, accounts = grp.getgrnam, os.getgrouplist, pwd.getpwnam

    def group(name: str) -> grp.struct_group:
        there = folder / "groups"
        if name == "mta-and-us" and there.exists() and name in there.read_text():
            return grp.struct_group((name, "x", 64_000, []))
        return groups(name)

    def groups_of(name: str, own: int) -> list[int]:
        there = folder / "members"
        known = there.exists() and f"{name} mta-and-us" in there.read_text()
        return [*members(name, own), *([64_000] if known else [])]

    monkeypatch.setattr(grp, "getgrnam", group)
    monkeypatch.setattr(os, "getgrouplist", groups_of)
    monkeypatch.setattr(account, "MTA_ACCOUNTS", ("daemon",))
    machine.main_cf.write_text(f"smtpd_milters = unix:{folder}/state/m.sock\n")
    machine.write(
        {"milter": {"socket": f"unix:{folder}/state/m.sock", "socket_group": "mta-and-us"}}
    )
    said = machine.mend(("socket", "there is no group mta-and-us"))
    assert any("daemon, who must connect" in one.text for one in said)
    assert "systemctl restart daemon" in machine.log.read_text()

    def account_named(name: str) -> pwd.struct_passwd:
        return nobody if name == "milter-user" and (folder / "made").exists() else accounts(name)

    monkeypatch.setattr(pwd, "getpwnam", account_named)
    machine.program(
        "adduser",
        'test "$*" = "--system --group --no-create-home milter-user" && touch {folder}/made',
    )
    machine.main_cf.write_text(f"smtpd_milters = {machine.ours}\n")
    machine.write({"milter": {"user": "milter-user"}})
    machine.mend(("account", "there is no account milter-user"))


def test_a_clock_that_nothing_keeps_right(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status() -> int:
        return 0 if (machine.folder / "synchronised").exists() else host.UNSYNCHRONISED

    monkeypatch.setattr(host.clock, "__defaults__", (status,))
    (machine.folder / "80-one.list").touch()
    monkeypatch.setattr(
        service.synchronise,
        "__defaults__",
        (lambda _: "/usr/bin/timedatectl", (machine.folder,)),
    )
    machine.mend(("clock", "nothing keeps the clock"))


def test_name_servers_that_are_silent(machine: Machine) -> None:
    """A resolver of this host answers at its usual port."""
    machine.write({"dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": 0.5}})
    try:
        with DnsServer(ZONE, port=53):
            machine.mend(("dns", "not usable"))
    except (OSError, RuntimeError) as error:
        pytest.skip(f"port 53 is not free here: {error}")
    assert "apt-get install -y unbound" in machine.log.read_text()


def test_limits_of_the_service(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    units = service.UNITS[1]
    units.mkdir()
    (units / service.UNIT).write_text("[Service]\n")
    folder = service.UNITS[0] / f"{service.UNIT}.d"

    def allowed(_: Path) -> limits.HostLimits:
        """As systemd would read the unit."""
        text = "".join(path.read_text() for path in folder.glob("*.conf"))
        given = dict(re.findall(r"^(\w+)=(\w+)$", text, re.MULTILINE))
        return limits.HostLimits(
            int(given.get("LimitNOFILE", 100)),
            int(given.get("TasksMax", 10)),
            None if given.get("LimitAS") == "infinity" else 1 << 20,
            int(given.get("MemoryMax", "10M").removesuffix("M")) * limits.MB,
        )

    monkeypatch.setattr(limits, "of_service", allowed)
    machine.mend(
        ("limits", "open files"),
        ("limits", "processes and threads"),
        ("limits", "MB of memory"),
        ("limits", "address space"),
    )


@needs_postconf
@pytest.mark.parametrize(
    ("main_cf", "master_cf", "faults"),
    [
        ("smtpd_milters = inet:127.0.0.1:1\n", "", [("postfix", "does not name this milter")]),
        (
            "smtpd_milters = { inet:127.0.0.1:1, connect_timeout=3s },"
            " { OURS, default_action=accept }\nmilter_protocol = 2\n",
            "",
            [
                ("postfix", "default_action=accept"),
                ("postfix", "comes before this milter"),
                ("postfix", "older than 6"),
            ],
        ),
        (
            "smtpd_milters = OURS\nmilter_default_action = accept\n",
            "25 inet n - n - - smtpd\n -o receive_override_options=no_address_mappings,no_milters\n"
            "26 inet n - n - - smtpd -o smtpd_milters=\n"
            "27 inet n - n - - smtpd -o { smtpd_milters = { inet:127.0.0.1:2,"
            " default_action=accept } inet:127.0.0.1:3 }\n",
            [
                ("postfix", "default_action=accept"),
                ("postfix", "no_milters"),
                ("postfix", "26: -o smtpd_milters"),
                ("postfix", "27: -o smtpd_milters"),
            ],
        ),
        (
            "smtpd_milters = OURS\nreceive_override_options = no_milters\n",
            "",
            [("postfix", "receive_override_options of main.cf")],
        ),
        (
            "smtpd_milters = OURS\nnon_smtpd_milters = OURS, inet:127.0.0.1:1\n"
            "content_filter = smtp:[127.0.0.1]:20024\nmydomain = test.example\n"
            "masquerade_domains = $mydomain\n",
            "127.0.0.1:20025 inet n - n - - smtpd -o content_filter=\n",
            [
                ("postfix", "non_smtpd_milters"),
                ("postfix", "loses the Authentication-Results"),
                ("postfix", "masquerade_domains"),
            ],
        ),
    ],
)
def test_a_postfix_that_is_attached_wrongly(
    machine: Machine, main_cf: str, master_cf: str, faults: Sequence[Fault]
) -> None:
    ours = f"inet:127.0.0.1:{machine.port}"
    machine.main_cf.write_text("compatibility_level = 3.6\n" + main_cf.replace("OURS", ours))
    machine.master_cf.write_text(f"smtp inet n - n - - smtpd\n{master_cf}")
    machine.mend(*faults)


@needs_postconf
def test_networks_and_names_that_exempt_strangers(machine: Machine) -> None:
    machine.main_cf.write_text(
        f"compatibility_level = 3.6\nsmtpd_milters = {machine.ours}\n"
        "mynetworks = 127.0.0.0/8 10.0.0.0/8\nmilter_macro_daemon_name = OWN\n"
    )
    machine.write(
        {
            "authentication": {
                "trusted_networks": ["127.0.0.0/8", "192.0.2.0/24"],
                "trusted_daemons": ["OWN", "MSA"],
                "sendmail_daemons_authenticate": "yes",
            }
        }
    )
    machine.mend(("postfix", "trusted_networks has 192.0.2.0/24"), ("postfix", "OWN is in"))
    trust = load(machine.config).authentication
    assert (trust.trusted_networks, trust.trusted_daemons) == (["127.0.0.0/8"], ["MSA"])


SENDMAIL_MC = """\
include(`ROOT/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`linux')dnl
FEATURE(`no_default_msa')dnl
DAEMON_OPTIONS(`Name=MSA, Port=587')dnl
FILTERS
MAILER(`local')dnl
MAILER(`smtp')dnl
"""
needs_m4 = pytest.mark.skipif(
    not (UNPACKED / "usr/share/sendmail/cf/m4/cf.m4").exists() and not REQUIRED,
    reason="needs tools/setup_tests.sh",
)


@needs_m4
@pytest.mark.parametrize(
    ("filters", "faults"),
    [
        ("", [("sendmail", "does not name this milter"), ("rewriting", "BY THE DNS")]),
        (
            "INPUT_MAIL_FILTER(`dmarc-milter', `S=inet:1@127.0.0.1, F=T')dnl",
            [("sendmail", "which is not its socket")],
        ),
        (
            "INPUT_MAIL_FILTER(`opendmarc', `S=local:/run/opendmarc.sock')dnl\n"
            "INPUT_MAIL_FILTER(`spamass', `S=local:/run/spamass.sock')dnl\n"
            "INPUT_MAIL_FILTER(`mine', `S=inet:PORT@localhost')dnl\n"
            "INPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')dnl",
            [
                ("sendmail", "has no F=T"),
                ("filters", "OpenDMARC"),
                ("filters", "verifies as well as signs"),
                ("filters", "rewrites what it takes for spam"),
            ],
        ),
    ],
)
def test_a_sendmail_and_the_filters_beside(
    machine: Machine, filters: str, faults: Sequence[Fault]
) -> None:
    """Its sendmail.mc is changed and its sendmail.cf rebuilt, by a Makefile as Debian has one."""
    mail, unpacked = machine.folder / "mail", UNPACKED.resolve()
    (machine.folder / "root/etc").mkdir(parents=True)
    (machine.folder / "root/etc/opendkim.conf").write_text("Socket inet:8891@localhost\nMode sv\n")
    mail.mkdir()
    m4 = shutil.which("m4") or f"{unpacked}/usr/bin/m4"
    (mail / "Makefile").write_text(
        f"restart:\n\tcd {mail} && {m4} -D_CF_DIR_={unpacked}/usr/share/sendmail/cf/ sendmail.mc"
        " > sendmail.cf\n"
    )
    text = SENDMAIL_MC.replace("ROOT", str(unpacked)).replace("FILTERS", filters)
    (mail / "sendmail.mc").write_text(text.replace("PORT", str(machine.port)))
    machine.program("make", "cd $2 && sh -c \"$(sed -n 's/^\t//p' Makefile)\"")
    machine.obey(f"make -C {mail} restart")
    machine.sendmail_cf = mail / "sendmail.cf"
    machine.write({"authentication": {"trusted_daemons": ["MSA"]}})
    machine.mend(*faults, ("sendmail", "the daemon MSA"))


RSPAMD_DMARC = 'actions {\n  reject = "reject";\n}\nreporting { enabled = true; email = "a@b"; }\n'


@needs_postconf
@pytest.mark.parametrize(
    ("files", "main_cf", "faults"),
    [
        (
            {
                "etc/opendkim.conf": "Syslog yes\nMode sv\nSocket inet:8891@localhost\n",
                "etc/opendmarc.conf": "Socket local:/run/opendmarc/opendmarc.sock\n",
                "etc/rspamd/local.d/milter_headers.conf": (
                    'use = ["x-spamd-bar", "authentication-results", "x-virus"];\n'
                ),
                "etc/rspamd/override.d/dmarc.conf": RSPAMD_DMARC,
            },
            "OURS, unix:/run/opendmarc/opendmarc.sock, inet:127.0.0.1:8891, inet:127.0.0.1:11332",
            [
                ("filters", "OpenDMARC (smtpd_milters"),
                ("filters", "verifies as well as signs"),
                ("filters", "writes Authentication-Results itself"),
                ("filters", "applies DMARC policies"),
                ("filters", "the order in smtpd_milters"),
            ],
        ),
        (
            {
                "etc/opendkim.conf": "Mode v\n",
                "etc/default/spamass-milter": "OPTIONS=\n",
                "etc/amavis/conf.d/50-user": "use strict;\n$enable_dkim_verification = 1;\n1;\n",
                "etc/postfix-policyd-spf-python/policyd-spf.conf": "HELO_reject = Fail\n",
            },
            "unix:spamass/spamass.sock, OURS, inet:127.0.0.1:8891\n"
            "smtpd_recipient_restrictions = reject_unauth_destination,"
            " check_policy_service unix:private/policyd-spf\n"
            "content_filter = amavis:[127.0.0.1]:10024",
            [
                ("filters", "rewrites what it takes for spam"),
                ("filters", "only verifies"),
                ("filters", "verifies DKIM again"),
                ("filters", "refuses by SPF alone"),
            ],
        ),
        (
            {"etc/opendkim.conf": "Mode s\n"},
            "OURS, inet:127.0.0.1:8891\nsmtpd_recipient_restrictions = reject_unauth_destination,"
            " check_policy_service unix:private/spf, permit",
            [("filters", "refuses by SPF alone")],
        ),
        ({"etc/opendmarc.conf": "Socket inet:PORT@localhost\n"}, "OURS", []),
    ],
)
def test_other_filters_beside_postfix(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    main_cf: str,
    faults: Sequence[Fault],
) -> None:
    root = machine.folder / "root"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.replace("PORT", str(machine.port)))
    machine.main_cf.write_text(
        "compatibility_level = 3.6\nsmtpd_milters = " + main_cf.replace("OURS", machine.ours) + "\n"
    )
    if not faults:  # a rival that has our socket: the unit's state is systemd's to know
        (found,) = machine.doctor()
        machine.obey(found.remedy)
        assert "disable --now opendmarc" in machine.log.read_text()
        return
    machine.mend(*faults)
    if "etc/rspamd/override.d/dmarc.conf" in files:
        kept = (root / "etc/rspamd/override.d/dmarc.conf").read_text()
        assert 'email = "a@b"' in kept
        fields = (root / "etc/rspamd/local.d/milter_headers.conf").read_text()
        assert fields == 'use = ["x-spamd-bar", "x-virus"];\n'


DMARC, SID = "unix:/run/opendmarc/opendmarc.sock", "unix:/run/sid-milter/sid.sock"
VERIFY_ONLY = {"etc/opendkim.conf": "Mode v\nSocket inet:8891@localhost\n"}


@needs_postconf
@pytest.mark.parametrize(
    ("main_cf", "master_cf", "files", "after"),
    [
        (f"smtpd_milters = {DMARC}", "", {}, "OURS"),
        (f"smtpd_milters = unix:spamass/x, {DMARC}", "", {}, "OURS, unix:spamass/x"),
        (f"smtpd_milters = OURS, {DMARC}, {SID}", "", {}, "OURS"),
        (f"smtpd_milters = OURS, {DMARC}, inet:localhost:8891", "", VERIFY_ONLY, "OURS"),
        (f"smtpd_milters = inet:localhost:8891, {DMARC}", "", VERIFY_ONLY, "OURS"),
        (f"smtpd_milters = unix:spamass/x, {DMARC}, OURS", "", {}, "OURS, unix:spamass/x"),
        (
            f"smtpd_milters = {{ inet:127.0.0.1:PORT, default_action=accept }}, {DMARC}",
            "",
            {},
            "{ inet:127.0.0.1:PORT, default_action=tempfail }",
        ),
        (
            f"smtpd_milters = OURS, {DMARC}\nnon_smtpd_milters = $smtpd_milters",
            f"26 inet n - n - - smtpd -o {{ smtpd_milters = {DMARC}, {SID} }}\n"
            f"submission inet n - n - - smtpd -o smtpd_milters={DMARC},inet:127.0.0.1:2\n"
            f"cleanup unix n - n - 0 cleanup -o non_smtpd_milters={SID}\n",
            {},
            "OURS",
        ),
        (
            "smtpd_milters = OURS\nnon_smtpd_milters = inet:localhost:54321, OURS\n"
            "content_filter = smtp:[127.0.0.1]:20024",
            "",
            {},
            "OURS",
        ),
        (
            "# dmarc-milter setup: begin (dmarc-milter setup --remove takes it out)\n"
            "smtpd_milters = { inet:127.0.0.1:1, default_action=tempfail, content_timeout=300s }\n"
            f"# dmarc-milter setup: end\nnon_smtpd_milters = {DMARC}\n",
            f"26 inet n - n - - smtpd -o {{ smtpd_milters = {DMARC} }}\n",
            {},
            "OURS",
        ),
        (
            "smtpd_milters = OURS\nsmtpd_recipient_restrictions = reject_unauth_destination,"
            " check_policy_service unix:private/spf, check_policy_service inet:spf.local:1",
            "",
            {},
            "OURS",
        ),
    ],
)
def test_no_remedy_about_milters_undoes_another(
    machine: Machine, main_cf: str, master_cf: str, files: dict[str, str], after: str
) -> None:
    """Typed from top to bottom without `doctor` between. What is stopped is named nowhere: mail
    would wait for it."""
    for name, text in files.items():
        path = machine.folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def here(text: str) -> str:
        return text.replace("OURS", machine.ours).replace("PORT", str(machine.port))

    machine.main_cf.write_text(f"compatibility_level = 3.6\n{here(main_cf)}\n")
    machine.master_cf.write_text(f"smtp inet n - n - - smtpd\n{master_cf}")
    assert machine.mend_at_once()
    files_after = read(machine.main_cf)
    assert files_after.value("smtpd_milters") == here(after)
    whole = files_after.settings, [one.arguments for one in files_after.services]
    assert not re.search("opendmarc|54321|sid-milter|8891", str(whole))


@needs_postconf
def test_a_filter_is_stopped_when_no_list_names_it_any_more(machine: Machine) -> None:
    """Each command alone: at no time does mail wait for a filter that is stopped."""
    machine.main_cf.write_text(
        f"compatibility_level = 3.6\nsmtpd_milters = {machine.ours}, {DMARC}\n"
        "non_smtpd_milters = inet:localhost:54321\n"
    )
    machine.master_cf.write_text(
        f"smtp inet n - n - - smtpd\nsubmission inet n - n - - smtpd -o smtpd_milters={DMARC}\n"
    )
    about = [one for one in machine.doctor() if "judges the same mail" in one.text]
    assert len(about) == 3
    for one in about:
        before, stop, _ = one.remedy.partition("systemctl disable --now opendmarc")
        assert stop
        assert [words in before for words in ("-e 'smtpd_", "-e 'non_", "submission")] == [True] * 3


@needs_postconf
def test_a_list_is_not_written_with_a_socket_that_the_milter_leaves(machine: Machine) -> None:
    """Another program has its port: the remedy above names another, and `setup` attaches that."""
    machine.main_cf.write_text(f"smtpd_milters = {DMARC}, unix:spamass/x, {machine.ours}\n")
    with socket.create_server(("127.0.0.1", machine.port)):
        said = machine.doctor()
        for one in said:
            if not one.remedy.startswith("first "):
                machine.obey(one.remedy)
        assert sum(one.remedy.startswith("first settle the socket") for one in said) >= 3
        machine.mend(("postfix", "does not name this milter"))
    socket_now = load(machine.config).milter.socket
    port = socket_now.partition(":")[2].partition("@")[0]
    assert socket_now != machine.tables["milter"]["socket"]
    first = read(machine.main_cf).milters()[0]
    assert first.endpoint == f"inet:127.0.0.1:{port}"


@needs_postconf
def test_names_that_exempt_strangers_go_together(machine: Machine) -> None:
    """A port of submission without a login too: SASL that is not set up would stop its smtpd."""
    machine.master_cf.write_text(
        "smtp inet n - n - - smtpd -o milter_macro_daemon_name=MSA\n"
        "25 inet n - n - - smtpd\n"
        "submission inet n - n - - smtpd -o milter_macro_daemon_name=ORIGINATING\n"
        "submissions inet n - n - - smtpd -o milter_macro_daemon_name=SAFE -o"
        " smtpd_sasl_auth_enable=yes\n"
    )
    trust = {
        "trusted_daemons": ["MSA", "ORIGINATING", "SAFE"],
        "sendmail_daemons_authenticate": "yes",
    }
    machine.write({"authentication": trust})
    said = machine.mend_at_once()
    assert len(said) == 2
    assert load(machine.config).authentication.trusted_daemons == ["SAFE"]
    assert "sasl" not in str([one.remedy for one in said])


@pytest.mark.parametrize(
    ("changed", "faults"),
    [
        ({"email": "dmarc@bare.example"}, ["no SPF record", "bare.example: "]),
        ({"email": "dmarc@nowhere.example"}, ["cannot get bounces"]),
        ({"bounce_address": f"{'b' * 60}@reports.example"}, ["more than 64 bytes"]),
        ({"email": "dmarc@two.example"}, ["SPF of two.example"]),
        ({"dkim_selector": "other"}, ["other._domainkey"]),
        ({"dkim_selector": SENDER.key_name.split(".")[0]}, ["another key"]),
        ({"dkim_selector": "other", "dkim_domain": "other.example"}, ["does not align"]),
        ({"dkim_selector": ""}, ["needs dkim_selector"]),
        ({"copy_to": "FOLDER/copies of it"}, ["there is no folder"]),
        ({"org_name": ""}, ["are both needed"]),
    ],
)
def test_a_sender_of_reports_whom_nobody_believes(
    machine: Machine, changed: dict[str, str], faults: list[str]
) -> None:
    """What must be published is published as it is printed."""
    machine.dns.put("bare.example", {"A": ["192.0.2.7"]})
    two = {"A": ["192.0.2.7"], "TXT": ["v=spf1 -all", "v=spf1 mx -all"]}
    machine.dns.put("two.example", two)
    machine.zone |= {"bare.example": {"A": ["192.0.2.7"]}, "two.example": two}
    key = machine.folder / "key.pem"
    signed: dict[str, Any] = {}
    if "dkim_selector" in changed:
        machine.obey(service.new_key(str(key), load(machine.config)))
        signed = {"dkim_domain": "reports.example", "dkim_key_file": str(key)}
    told = {name: value.replace("FOLDER", str(machine.folder)) for name, value in changed.items()}
    machine.write({"reporting": signed | told})
    said = machine.mend(*(("reports", words) for words in faults))
    if "cannot get bounces" in faults:
        assert any(one.remedy.endswith(" MX 10 mx.host.example.") for one in said)


@pytest.mark.parametrize(
    ("changed", "words", "done"),
    [
        ({"smtp": "127.0.0.1:CLOSED"}, "refused", "systemctl start postfix"),
        ({"smtp_tls": "verify"}, "does not offer STARTTLS", ""),
    ],
)
def test_a_mail_server_that_takes_no_reports(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str],
    words: str,
    done: str,
) -> None:
    monkeypatch.setattr("dmarc_milter.cli.doctor.find", lambda _: "postfix")
    port = free_port()
    told = {name: value.replace("CLOSED", str(port)) for name, value in changed.items()}
    machine.write({"reporting": told})
    if done:
        (found,) = machine.doctor()
        assert words in found.text
        machine.obey(found.remedy)
        assert done in machine.log.read_text()
    else:
        machine.mend(("report path", words))
