"""What the Debian package's scripts ask of systemd and say to the administrator, with programs that
only note what they were asked. tests/live/test_package.py runs them by dpkg."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "packaging/debian"
SYSTEMCTL = """\
#!/bin/sh
case "$*" in *is-enabled*) grep -qx "$4" "$0.enabled";; *) echo "systemctl $*" >> "$LOG";; esac
"""
NOTED = '#!/bin/sh\necho "${0##*/} $*" >> "$LOG"\n'
OURS = "smtpd_milters = inet:127.0.0.1:8893\n"


class Host:
    """A folder in place of /, and what was asked of deb-systemd-invoke there, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.log.touch()
        self.write("bin/systemctl", SYSTEMCTL)
        self.enable()
        for name in ("deb-systemd-invoke", "deb-systemd-helper", "systemd-sysusers"):
            self.write(f"bin/{name}", NOTED)
        self.write("bin/systemd-tmpfiles", NOTED)
        self.write("bin/postmulti", f"#!/bin/sh\ncat {folder}/instances 2>/dev/null\n")
        (folder / "run/systemd/system").mkdir(parents=True)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def enable(self, *units: str) -> None:
        self.write("bin/systemctl.enabled", "".join(f"{unit}\n" for unit in units))

    def run(self, script: str, *arguments: str) -> str:
        """What it says."""
        text = (SCRIPTS / script).read_text()
        for name in ("/run/systemd", "/etc/systemd", "/etc/postfix", "/etc/mail"):
            text = text.replace(name, f"{self.folder}{name}")
        done = subprocess.run(
            ["/bin/sh", "-c", text, script, *arguments],
            capture_output=True,
            check=True,
            text=True,
            env={"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "LOG": str(self.log)},
        )
        return done.stdout + done.stderr

    def started(self) -> list[str]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [
            unit
            for program, verb, *units in lines
            if program == "deb-systemd-invoke" and verb in ("start", "restart")
            for unit in units
        ]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("before", ["", "0.1.0"])
def test_what_a_removal_stopped_serves_again_when_the_package_comes_back(
    host: Host, before: str
) -> None:
    """dpkg names the version that was configured before, after a removal too. The socket stands
    before the service that takes it (`fd:3`); an instance's as well."""
    host.enable("dmarc-milter.socket", "dmarc-milter-web.service", "dmarc-milter-summary.timer")
    wants = host.folder / "etc/systemd/system"
    for target, unit in (
        ("multi-user", "dmarc-milter@b.service"),
        ("sockets", "dmarc-milter@b.socket"),
    ):
        (wants / f"{target}.target.wants").mkdir(parents=True)
        (wants / f"{target}.target.wants" / unit).symlink_to("/nowhere")
    host.run("prerm", "remove")
    host.run("postinst", "configure", before)
    started = host.started()
    stopped = {
        unit
        for line in host.log.read_text().splitlines()
        if line.startswith("deb-systemd-invoke stop ")
        for unit in line.split()[2:]
    }
    assert stopped <= set(started)
    assert started.index("dmarc-milter.socket") < started.index("dmarc-milter.service")
    assert started.index("dmarc-milter@b.socket") < started.index("dmarc-milter@b.service")


@pytest.mark.parametrize("before", ["", "0.1.0"])
def test_nothing_is_started_that_nobody_enabled(host: Host, before: str) -> None:
    host.run("postinst", "configure", before)
    assert host.started() == ["dmarc-milter.service", "dmarc-milter-report.timer"]


@pytest.mark.parametrize(
    ("name", "text", "warned"),
    [
        ("etc/postfix/main.cf", OURS, True),
        ("etc/postfix/main.cf", f"#{OURS}", False),
        (
            "etc/postfix/master.cf",
            "smtp inet n - y - - smtpd\n  -o smtpd_milters=inet:[::1]:8893\n",
            True,
        ),
        ("etc/postfix-in/main.cf", OURS, True),
        ("etc/mail/sendmail.mc", "INPUT_MAIL_FILTER(`dmarc-milter', `S=inet:1@[::1]')\n", True),
        ("etc/elsewhere/main.cf", OURS, False),
    ],
)
def test_a_removal_warns_of_a_mail_server_that_still_asks(
    host: Host, name: str, text: str, *, warned: bool
) -> None:
    """postmulti(1) -l: name, group, enabled, folder. An upgrade says nothing."""
    host.write(
        "instances", f"-  -  y  {host.folder}/etc/postfix\nin - y {host.folder}/etc/postfix-in\n"
    )
    host.write(name, text)
    assert ("mail waits at its senders" in host.run("prerm", "remove")) == warned
    assert host.run("prerm", "upgrade", "0.2.0") == ""
