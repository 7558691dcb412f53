"""Messages a second through a private Postfix, as Postfix's own smtp-source sends them: with no
milter, and with each contender."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.contenders import Contender
from bench.corpus import Sample
from bench.load import Address
from live.place import UNPACKED, library_path
from live.postfix import DOMAIN, private_postfix

SESSIONS = 16


def rate(
    contender: Contender | None, sample: Sample, messages: int, *, sessions: int = SESSIONS
) -> float:
    """So many copies of one signed message, each in an SMTP session of its own; delivered to
    nowhere."""
    milters = ",".join(map(in_main_cf, contender.chain)) if contender else ""
    settings = {
        "local_transport": "discard:",
        "milter_default_action": "tempfail",
        "smtpd_client_connection_rate_limit": "0",
    }
    with (
        private_postfix(milters=milters, extra=settings) as mta,
        tempfile.NamedTemporaryFile() as file,
    ):
        file.write(
            b"".join(
                name + b":" + value.replace(b"\n", b"\r\n") + b"\r\n"
                for name, value in sample.fields
            )
            + b"\r\n"
            + sample.body
        )
        file.flush()
        send(mta.port, sample, file.name, 50, sessions)
        before = time.perf_counter()
        send(mta.port, sample, file.name, messages, sessions)
        return messages / (time.perf_counter() - before)


def in_main_cf(address: Address) -> str:
    """A milter's socket as smtpd_milters has it."""
    return f"unix:{address}" if isinstance(address, str) else f"inet:{address[0]}:{address[1]}"


def send(port: int, sample: Sample, file: str, messages: int, sessions: int) -> None:
    """Until the last one is answered. smtp-source fails where a message is refused."""
    source = Path(UNPACKED) / "usr/sbin/smtp-source"
    command: Sequence[str] = [
        str(source),
        "-s",
        str(sessions),
        "-m",
        str(messages),
        "-f",
        sample.mail_from,
        "-t",
        f"user@{DOMAIN}",
    ]
    subprocess.run(
        [*command, "-F", file, f"127.0.0.1:{port}"],
        check=True,
        env=library_path(),
        stdin=subprocess.DEVNULL,
    )
