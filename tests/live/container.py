"""The container image as an engine would start it, without an engine: a process namespace of its
own, a read-only root, no capabilities, the state in a folder. `make container-check` runs this.

    python namespace.py --host-name NAME --address 203.0.113.66 -- python -m live.container \\
        MILTER-ROOT MILTER-CONFIG.json POSTFIX-ROOT POSTFIX-CONFIG.json
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes.daemon import wait_for
from fakes.dns_server import DnsServer
from fakes.milter_client import Gone, MilterClient
from live.scenarios import AUTHSERV_ID, STRANGER, letter, zone
from live.smtp import Smtp

MILTER = ("127.0.0.1", 8893)
UNSHARE = ("unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child")
LIMITS = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups")
LONG = 120.0
"""Seconds: a bound for a machine that has much else to do."""


class Container:
    """One start of an image. Settings are those of the image and `environment`."""

    def __init__(self, root: Path, image: dict[str, Any], folder: Path) -> None:
        self.root, self.image, self.folder = root, image, folder
        self.environment = dict(each.split("=", 1) for each in image["Env"])
        self.mounts: list[str] = []
        self.read_only = True
        self.process: subprocess.Popen[str] | None = None

    def start(self, *command: str) -> None:
        """As `docker run --read-only --cap-drop ALL --security-opt no-new-privileges`."""
        words = [*(self.image.get("Entrypoint") or []), *(command or self.image["Cmd"])]
        script = "\n".join([*self._prepare(), f"exec chroot {self.root} {self._as_user(words)}"])
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    "unshare",
                    "--mount",
                    "--pid",
                    "--ipc",
                    "--fork",
                    "--kill-child",
                    "sh",
                    "-euc",
                    script,
                ],
                stdout=log,
                stderr=log,
                text=True,
            )

    def _prepare(self) -> Iterator[str]:
        root = self.root
        yield f"mount --bind {root} {root}"
        if self.read_only:
            yield f"mount -o remount,bind,ro {root}"
        yield f"mount -t proc proc {root}/proc"
        yield f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp"
        yield f"mount -t tmpfs -o mode=755 tmpfs {root}/dev"
        for name in ("null", "zero", "random", "urandom", "full"):
            yield f"touch {root}/dev/{name} && mount --bind /dev/{name} {root}/dev/{name}"
        yield f"ln -s /proc/self/fd {root}/dev/fd && ln -s /proc/self/fd/1 {root}/dev/stdout"
        yield f"mount -t tmpfs -o mode=755 tmpfs {root}/run"
        yield f"mkdir {root}/run/secrets"
        yield from self.mounts

    def _as_user(self, words: list[str]) -> str:
        environment = [f"{key}={value}" for key, value in self.environment.items()]
        command = ["/usr/bin/env", "-i", *environment, *words]
        number = self.image.get("User", "").partition(":")[0]
        if number:
            account = (f"--reuid={number}", f"--regid={number}")
            command = ["/usr/bin/setpriv", *account, *LIMITS, *command]
        return shlex.join(command)

    @property
    def first(self) -> int:
        """The process that is number 1 inside, as it is called out here."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        assert wait_for(lambda: children.read_text().split(), LONG), self.text()
        return int(children.read_text().split()[0])

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec`."""
        enter = ["nsenter", f"--target={self.first}", "--mount", "--pid", "--ipc"]
        inside = ["chroot", str(self.root), "sh", "-c", self._as_user(list(command))]
        return subprocess.run([*enter, *inside], check=False, capture_output=True, text=True)

    def healthy(self) -> bool:
        """By the image's own health check."""
        test = self.image["Healthcheck"]["Test"]
        assert test[0] == "CMD", test
        return self.run(*test[1:]).returncode == 0

    def has_begun(self) -> bool:
        """Whether the image's program has taken the place of what prepared it."""
        return Path(f"/proc/{self.first}/exe").readlink().name.startswith("python")

    def terminate(self) -> None:
        os.kill(self.first, signal.SIGTERM)

    def ended(self) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(LONG)

    def text(self) -> str:
        return (self.folder / "log").read_text()


def say(text: str) -> None:
    print(f"container-check: {text}", flush=True)


def judged(author: str) -> int:
    """The code for a message from STRANGER with this author."""
    with MilterClient(MILTER) as mta:
        return spoof(mta, author)


def spoof(mta: MilterClient, author: str) -> int:
    mta.negotiate()
    mta.connect(STRANGER.helo, STRANGER.address)
    mta.helo(STRANGER.helo)
    return mta.message(
        [("From", f" {author}"), ("Subject", " x")], b"Hello.\r\n", mail_from=f"<{author}>"
    ).code


def check_milter(milter: Container) -> None:
    milter.start("--version")
    assert milter.ended() == 0, milter.text()
    assert re.fullmatch(r"dmarc-milter \S+\n", milter.text()), milter.text()
    say(f"starts: {milter.text().strip()}")

    milter.start()
    assert wait_for(milter.healthy, LONG), milter.text()
    say("the health check is content")
    status = Path(f"/proc/{milter.first}/status").read_text()
    assert "Uid:\t18893\t18893\t18893\t18893" in status, status
    assert "CapEff:\t0000000000000000" in status, status
    assert judged("boss@reject.example") == 550, milter.text()
    assert judged("boss@none.example") == 250, milter.text()
    say("judges a message, as 18893 without capabilities on a read-only root")

    with MilterClient(MILTER) as mta:
        mta.negotiate()
        mta.connect(STRANGER.helo, STRANGER.address)
        mta.helo(STRANGER.helo)
        mta.mail("<boss@reject.example>")
        milter.terminate()
        assert wait_for(refuses_connections, LONG), milter.text()
        mta.rcpt("<bob@test.example>")
        mta.data()
        mta.header("From", " boss@reject.example")
        mta.eoh()
        assert mta.eom().code == 550, milter.text()
    assert milter.ended() == 0, milter.text()
    say("SIGTERM: takes no more, lets the session in flight end, and stops with 0")

    milter.start()
    assert wait_for(milter.healthy, LONG), milter.text()
    found = milter.run("dmarc-milter", "why", "--domain", "reject.example")
    assert found.returncode == 0, found
    assert "reject.example" in found.stdout, found
    say("started again it remembers, by the volume")
    milter.terminate()
    assert milter.ended() == 0, milter.text()


def check_early_end(milter: Container) -> None:
    for delay in (0.0, 0.05, 0.3):
        milter.start()
        assert wait_for(milter.has_begun, LONG), milter.text()
        time.sleep(delay)
        milter.terminate()
        assert milter.ended() == 0, milter.text()
    say("SIGTERM while it still starts is not lost")


def refuses_connections() -> bool:
    try:
        with MilterClient(MILTER, timeout=1.0) as mta:
            mta.negotiate()
    except (Gone, OSError):
        return True
    return False


def check_postfix(milter: Container, postfix: Container) -> None:
    """The example's Postfix, with the line that the example gives it."""
    milter.start()
    postfix.start()
    assert wait_for(milter.healthy, LONG), milter.text()
    assert wait_for(answers, LONG), postfix.text()
    codes = {}
    for domain in ("reject.example", "none.example"):
        with Smtp(25, connected=connected()) as smtp:
            smtp.command(f"EHLO {STRANGER.helo}")
            codes[domain] = smtp.transaction(
                letter(f"Boss <boss@{domain}>"),
                mail_from=f"boss@{domain}",
                recipients=("root@test.example",),
            ).code
    assert codes == {"reject.example": 550, "none.example": 250}, postfix.text() + milter.text()
    say("the example's Postfix refuses a forged message and takes another")
    for each in (postfix, milter):
        each.terminate()
        each.ended()


def connected() -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", 25), timeout=60, source_address=(STRANGER.address, 0)
    )


def answers() -> bool:
    try:
        with Smtp(25, connected=connected()) as smtp:
            return smtp.greeting.code == 220
    except OSError:
        return False


@contextmanager
def containers(arguments: list[str], nameserver: str) -> Iterator[tuple[Container, Container]]:
    roots = [Path(arguments[0]), Path(arguments[2])]
    images = [json.loads(Path(arguments[n]).read_text()) for n in (1, 3)]
    with tempfile.TemporaryDirectory(prefix="dmarc-milter-container.") as name:
        folder = Path(name)
        made = []
        for kind, root, image in zip(("milter", "postfix"), roots, images, strict=True):
            (folder / kind).mkdir()
            made.append(Container(root, image, folder / kind))
        milter, postfix = made
        state, secret = folder / "state", folder / "store-password"
        state.mkdir()
        os.chown(state, 18893, 18893)
        secret.write_text("handed in\n")
        secret.chmod(0o444)  # as Docker and Podman hand secrets in
        inside = f"{milter.root}/run/secrets/store-password"
        mount = "mount --bind"
        milter.mounts = [
            f"{mount} {state} {milter.root}/var/lib/dmarc-milter",
            f"touch {inside} && {mount} {secret} {inside} && mount -o remount,bind,ro {inside}",
        ]
        milter.environment |= {
            "DMARC_MILTER__AUTHENTICATION__AUTHSERV_ID": f'"{AUTHSERV_ID}"',
            "DMARC_MILTER__DNS__NAMESERVERS": f'["{nameserver}"]',
            "DMARC_MILTER__STORE__PASSWORD_FILE": '"/run/secrets/store-password"',
        }
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost dmarc-milter\n")
        postfix.read_only = False
        postfix.mounts = [
            f"touch {postfix.root}/etc/hosts && mount --bind {hosts} {postfix.root}/etc/hosts"
        ]
        postfix.environment |= {
            "MYHOSTNAME": AUTHSERV_ID,
            "MYDESTINATION": "test.example",
            "SMTPD_MILTERS": "{ inet:dmarc-milter:8893, default_action=tempfail }",
        }
        try:
            yield milter, postfix
        finally:
            for each in made:
                if each.process is not None and each.process.poll() is None:
                    each.process.kill()
                    each.process.wait()


def main() -> int:
    with DnsServer(zone()) as dns, containers(sys.argv[1:], dns.nameserver) as (milter, postfix):
        check_milter(milter)
        check_early_end(milter)
        check_postfix(milter, postfix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
