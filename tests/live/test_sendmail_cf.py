"""Sendmail itself says which daemons it makes of a sendmail.cf."""

from __future__ import annotations

import contextlib
import re
import subprocess

from live.place import private_folder, require_live
from live.sendmail import Sendmail
from mta.test_sendmail_cf import ODD_LINES

SAID = re.compile(r"^Daemon (.*) flags: (.*)$", re.MULTILINE)


def test_odd_daemon_lines_are_read_as_sendmail_reads_them() -> None:
    """MTA-40: what we expect of each line is what Sendmail makes of it (-d37.1)."""
    require_live()
    expected: list[tuple[str, bool]] = []
    for daemon in filter(None, ODD_LINES.values()):
        name, demands = daemon
        expected.append((f"Daemon{len(expected)}" if name == "Daemon0" else name, demands))
    with private_folder("sendmail") as folder:
        sendmail = Sendmail(folder, filters="")
        lines = "\n".join(ODD_LINES)
        (folder / "sendmail.cf").write_text(f"V10/Berkeley\n{lines}\nMlocal, P=/bin/true, A=true\n")
        with contextlib.suppress(subprocess.CalledProcessError):  # some lines are mistakes
            sendmail.run("-d37.1", "-bt")
        said = SAID.findall((folder / "control.log").read_text())
    assert [(name, "AUTHREQ" in flags) for name, flags in said] == expected
