"""`dmarc-milter setup` with real MTAs: applied, mail is marked; removed, it flows as before and the
file is as it was."""

from __future__ import annotations

import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from dmarc_milter.cli.main import main
from fakes.daemon import free_port
from fakes.dns_server import DnsServer
from live.attached import daemon, start_again, stop_gently
from live.place import UNPACKED, eventually, library_path, private_folder, require_live
from live.postfix import Postfix, private_postfix
from live.scenarios import SENDER, field_names, letter, zone
from live.sendmail import Sendmail

pytestmark = pytest.mark.live


def arrives_marked(postfix: Postfix) -> bool:
    """Send one message and read it where it was delivered."""
    before = len(postfix.mailbox("reader"))
    assert postfix.send(letter("Alice <alice@sender.example>"), "reader", client=SENDER).code == 250
    eventually(lambda: len(postfix.mailbox("reader")) > before, what="delivered")
    newest = max(
        (postfix.folder / "mail").glob("user/new/*"), key=lambda path: path.stat().st_mtime_ns
    )
    return "authentication-results" in field_names(newest.read_bytes())


@pytest.mark.parametrize("chrooted", [False, True], ids=["inet", "unix below the queue directory"])
def test_postfix_is_attached_and_detached(
    chrooted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over TCP, and for an smtpd that master.cf chroots, where the socket must lie below the queue
    directory."""
    require_live()
    with DnsServer(zone()) as dns, private_postfix(extra={"smtpd_milters": ""}) as postfix:
        master = postfix.folder / "etc/master.cf"
        if chrooted:
            master.write_text(
                master.read_text().replace("inet n - n - - smtpd", "inet n - y - - smtpd")
            )
            shutil.copytree(
                "/etc",
                postfix.folder / "queue/etc",
                ignore=lambda _folder, names: set(names) - {"services", "hosts"},
            )
        with daemon(dns, f"inet:{free_port()}@127.0.0.1", {}) as running:
            main_cf = postfix.folder / "etc/main.cf"
            before = main_cf.read_bytes()
            command = [
                "setup",
                "--mta",
                "postfix",
                "--main-cf",
                str(main_cf),
                "--config",
                str(running.config),
            ]
            chosen = ["--socket", "unix"] if chrooted else []
            assert main([*command, *chosen, "--apply"]) == 0
            assert "error:" not in capsys.readouterr().out
            if chrooted:  # the group that it said lets Postfix in, and the mode nobody else
                stop_gently(running)
                start_again(running)
                socket = postfix.folder / "queue/dmarc-milter/milter.sock"
                held = socket.stat()
                owner = pwd.getpwnam("postfix")
                assert (held.st_gid, held.st_mode & 0o777) == (owner.pw_gid, 0o660)
            postfix.set()
            eventually(
                lambda: arrives_marked(postfix),
                what=f"a message is marked\n{postfix.log()[-2000:]}",
            )
            assert main([*command, "--remove"]) == 0
            assert main_cf.read_bytes() == before
            postfix.set()
            eventually(lambda: not arrives_marked(postfix), what="mail flows unmarked")


MC = """\
include(`@ROOT@/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`linux')dnl
INPUT_MAIL_FILTER(`signer', `S=inet:8891@127.0.0.1, F=T')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
LOCAL_CONFIG
"""


@pytest.mark.parametrize(
    "lines",
    [MC, MC.replace("INPUT_MAIL_FILTER", "dnl INPUT_MAIL_FILTER")],
    ids=["beside another", "alone"],
)
def test_sendmail_cf_names_the_filter_first(tmp_path: Path, lines: str) -> None:
    """m4 makes the option O InputMailFilters and the definition of the filter from the edited
    file."""
    require_live()
    mc, conf = tmp_path / "sendmail.mc", tmp_path / "dmarc-milter.toml"
    mc.write_text(lines.replace("@ROOT@", str(UNPACKED.resolve())))
    conf.write_text("")
    before = mc.read_bytes()
    command = ["setup", "--mta", "sendmail", "--sendmail-mc", str(mc), "--config", str(conf)]
    assert main([*command, "--apply"]) == 0
    made = _m4(mc).splitlines()
    assert "Xdmarc-milter, S=inet:8893@127.0.0.1, F=T, T=S:4m;R:4m;E:5m" in made
    listed = next(line for line in made if line.startswith("O InputMailFilters="))
    assert listed == (
        "O InputMailFilters=dmarc-milter"
        if "dnl INPUT" in lines
        else "O InputMailFilters=dmarc-milter, signer"
    )
    assert main([*command, "--remove"]) == 0
    assert mc.read_bytes() == before


def test_sendmail_as_debian_configures_it_is_attached_and_detached(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its own sendmail.mc, with MAILER_DEFINITIONS: the lines are written, the .cf is made, mail is
    marked and a forgery refused."""
    require_live()
    with (
        DnsServer(zone()) as dns,
        private_folder("socket", parent="/run") as place,
        private_folder("sendmail") as folder,
        daemon(dns, f"unix:{place}/milter.sock", {}) as running,
    ):
        mta = Sendmail(folder, filters="", debian=True)
        mc = folder / "t.mc"
        before = mc.read_bytes()
        command = ["setup", "--mta", "sendmail", "--sendmail-mc", str(mc)]
        command += ["--config", str(running.config)]
        assert main([*command, "--apply"]) == 0
        assert "REWRITES From" in capsys.readouterr().out  # the .cf in force still does
        mta.rebuild()
        assert main([*command, "--apply"]) == 0
        assert "REWRITES From" not in capsys.readouterr().out
        try:
            mta.start()
            mta.send(letter("Alice <alice@sender.example>"), "reader", client=SENDER)
            assert "authentication-results" in field_names(mta.delivered("reader"))
            forged = letter("Boss <boss@reject.example>")
            assert mta.send(forged, "victim", client=SENDER).code == 550
        finally:
            mta.stop()
        assert main([*command, "--remove"]) == 0
        assert mc.read_bytes() == before


def _m4(path: Path) -> str:
    m4 = shutil.which("m4") or str(UNPACKED.resolve() / "usr/bin/m4")
    command = [m4, f"-D_CF_DIR_={UNPACKED.resolve()}/usr/share/sendmail/cf/", str(path)]
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        text=True,
        env=library_path() | {"PATH": "/usr/bin:/bin"},
    )
    return done.stdout
