"""Every command of the README runs, in a copy of the project, against a private Postfix; every line
it shows is the real one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmarc_milter.config.checks import socket_address
from dmarc_milter.mta import setup_lines
from fakes.daemon import free_port
from fakes.dns_server import DnsServer
from live.place import REPOSITORY, answers, eventually, private_folder
from live.postfix import Postfix, private_postfix
from live.scenarios import SENDER, field_names, letter, zone

README = (REPOSITORY / "README.md").read_text()
DEFAULT = socket_address("inet:8893@127.0.0.1")
LONG = {"make test"}
"""Commands that would run this very test; that their target exists is enough."""


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "text", [README, (REPOSITORY / "conf/postfix-main.cf").read_text()], ids=["README", "conf"]
)
def test_the_postfix_line_shown_is_the_one_that_serve_prints(text: str) -> None:
    """A line to copy exists once, in mta/setup_lines.py."""
    assert setup_lines.postfix_main_cf(DEFAULT) in text


@pytest.mark.parametrize(
    "text", [README, (REPOSITORY / "conf/sendmail.mc").read_text()], ids=["README", "conf"]
)
def test_the_sendmail_line_shown_is_the_one_that_serve_prints(text: str) -> None:
    """The same for Sendmail."""
    assert setup_lines.sendmail_mc(DEFAULT) in text


@pytest.mark.live
def test_every_command_of_the_readme_works() -> None:
    """In the order of the page: run, attach, see a message marked, check, reload, undo, see mail
    flow as before."""
    with DnsServer(zone()) as dns, private_postfix() as postfix, private_folder("readme") as folder:
        port = free_port()
        copy_project(folder, port=port, nameserver=dns.nameserver)
        shell = Shell(folder, postfix)
        run, attach, check, why, reload, undo, test = blocks()
        with shell.background(run):
            eventually(lambda: answers(port), what=f"make run serves\n{shell.output()}")
            words = [
                "mode: enforce",
                f"socket: inet:{port}@127.0.0.1",
                f"store: sqlite:///{folder}/.run/reports.db",
                f"configuration: {folder}/.run/dmarc-milter.toml",
                f".venv/bin/dmarc-milter why --config {folder}/.run/dmarc-milter.toml QUEUE-ID",
                f".venv/bin/dmarc-milter web --config {folder}/.run/dmarc-milter.toml",
            ]
            words += [
                line(socket_address(f"inet:{port}@127.0.0.1"))
                for line in (setup_lines.postfix_main_cf, setup_lines.sendmail_mc)
            ]
            # The port answers before all of them are printed.
            eventually(
                lambda: all(word in shell.output() for word in words),
                what=f"serve prints {words}\n{shell.output()}",
            )
            assert "runs already" in shell.run(run, allowed={2})
            shell.run(attach.replace("8893", str(port)))
            eventually(
                lambda: arrives(postfix) and marked(postfix),
                what=f"a message is marked\n{shell.output()}",
            )
            assert "dmarc" in shell.run(check, allowed={0, 1})
            queue_id = postfix.send(
                letter("Boss <boss@none.example>"), "reader", client=SENDER
            ).queue_id
            assert "none.example" in shell.run(why.replace("QUEUE-ID", queue_id))
            assert "ok       file" in shell.run(reload)
            shell.run(undo)
            eventually(lambda: not answers(port), what="the milter has stopped")
            eventually(lambda: arrives(postfix) and not marked(postfix), what="mail flows unmarked")
        assert test.strip() in LONG
        shell.run("make -n test")


def arrives(postfix: Postfix) -> bool:
    """Send one message; whether it was accepted and delivered."""
    before = len(postfix.mailbox("reader"))
    if postfix.send(letter("Alice <alice@sender.example>"), "reader", client=SENDER).code != 250:
        return False
    eventually(lambda: len(postfix.mailbox("reader")) > before, what="delivered")
    return True


def marked(postfix: Postfix) -> bool:
    """Whether the last message that arrived carries a result."""
    return "authentication-results" in field_names(newest(postfix))


def newest(postfix: Postfix) -> bytes:
    paths = (postfix.folder / "mail").glob("user/new/*")
    return max(paths, key=lambda path: path.stat().st_mtime_ns).read_bytes()


def copy_project(folder: Path, *, port: int, nameserver: str) -> None:
    """The project's files as a clone would have them, with this environment's libraries, a free
    port and a private DNS."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    for name in (".venv", ".test"):
        (folder / name).symlink_to(REPOSITORY / name)
    for name in ("pyproject.toml", "tools/setup.sh", "tools/setup_tests.sh"):
        os.utime(
            folder / name,
            (0, 0),
            # Older than the environment, which is shared: set-up from here would bind it to this
            # folder.
        )
    conf = folder / "conf/dmarc-milter.toml"
    text = conf.read_text().replace("nameservers = []", f'nameservers = ["{nameserver}"]')
    conf.write_text(text.replace("inet:8893@", f"inet:{port}@"))


class Shell:
    """Runs README blocks in the copy; `postfix` and `postconf` there mean the private Postfix."""

    def __init__(self, folder: Path, postfix: Postfix) -> None:
        self._folder = folder
        shims = folder / ".shims"
        shims.mkdir()
        for name in ("postfix", "postconf"):
            shim = shims / name
            shim.write_text(f'#!/bin/sh\nset -eu\nexec {postfix.command(name)} "$@"\n')
            shim.chmod(0o755)
        path = f"{shims}:{os.environ['PATH']}"
        self._environment = os.environ | {
            "PATH": path,
            "PYTHONPATH": "milter",
            "VENV": ".venv",
            **postfix.environment,
        }

    def run(self, block: str, *, allowed: set[int] | None = None) -> str:
        """The output of a block that must end well (or with one of the allowed exit codes)."""
        done = subprocess.run(
            ["sh", "-eu", "-c", block],
            check=False,
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            timeout=90,
            text=True,
        )
        assert done.returncode in (allowed or {0}), f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def background(self, block: str) -> Iterator[None]:
        with (self._folder / ".output").open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", block],
                cwd=self._folder,
                env=self._environment,
                stdout=output,
                stderr=output,
            )
            try:
                yield
            finally:
                process.terminate()
                process.wait(60)

    def output(self) -> str:
        return (self._folder / ".output").read_text(errors="replace")
