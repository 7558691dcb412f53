"""Report mail that another host refuses, brought back by the lines of docs/how-to/bounces.md: its
address is left alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from fakes.daemon import toml
from fakes.dns_server import DnsServer
from fakes.evaluations import RECORD, evaluation
from fakes.smtp_sink import smtp_sink
from fakes.stores import spool_row
from live.place import REPOSITORY, eventually, give_up, private_folder, require_live
from live.postfix import Postfix, private_postfix
from live.sendmail import private_sendmail

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

PAGE = (REPOSITORY / "docs/how-to/bounces.md").read_text()
RECIPIENT = "agg@legit.example"
ACCOUNT = "man"
"""Stands for dmarc-milter: an account that every Debian has, and that is not the one that mail
systems run commands as."""
ZONE: dict[str, dict[str, Any]] = {"legit.example": {"MX": [(10, "mx.legit.example")]}}


def shown(start: str) -> str:
    """The line of the page that starts so, with the continuation lines below it."""
    found = re.search(rf"^    ({re.escape(start)}.*\n(?:      .*\n)*)", PAGE, re.MULTILINE)
    assert found is not None, start
    return "\n".join(line.removeprefix("    ") for line in found[1].splitlines()) + "\n"


def interpreter() -> str:
    """A Python with the project's libraries that an unprivileged account may run."""
    account: dict[str, Any] = {"user": ACCOUNT, "extra_groups": []}
    for each in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            if (
                subprocess.run(
                    [each, "-c", ""], check=False, capture_output=True, cwd="/", **account
                ).returncode
                == 0
            ):
                return each
        except OSError:
            continue
    give_up("no Python that the mail system's account may run")
    raise AssertionError


@dataclass
class Host:
    """A host with a report to send. `program` stands for /usr/bin/dmarc-milter."""

    folder: Path
    dns: DnsServer
    smtp: int = 0

    @property
    def program(self) -> Path:
        return self.folder / "dmarc-milter"

    def configure(self, port: int) -> None:
        """Reports go to this submission port; the store belongs to the account that the bounces are
        taken by."""
        shutil.chown(self.folder, ACCOUNT)
        self.folder.chmod(
            0o750
        )  # as systemd makes it: nobody but the service's account writes there
        reporting = {
            "org_name": "Receiver",
            "email": "dmarc@mx.test.example",
            "bounce_address": "dmarc-bounces@mx.test.example",
            "smtp": f"127.0.0.1:{port}",
        }
        store = {"url": f"sqlite:///{self.folder}/reports.db"}
        tables = {
            "store": store,
            "dns": {"nameservers": [self.dns.nameserver]},
            "reporting": reporting,
        }
        (self.folder / "c.toml").write_text(toml(tables))
        paths = (
            f"{REPOSITORY}/milter:{sysconfig.get_path('purelib')}:{sysconfig.get_path('platlib')}"
        )
        run = (
            f'PYTHONPATH={paths} exec {interpreter()} -B -m dmarc_milter "$@" --config'
            f" {self.folder}/c.toml"
        )
        log = f'[ "$1$2" = reportbounce ] && exec >>{self.folder}/said 2>&1'
        self.program.write_text(
            f"#!/bin/sh\ncd /\n{log}\nunset LD_LIBRARY_PATH LD_PRELOAD\n{run}\n"
        )
        self.program.chmod(0o755)

    def report(self, *words: str) -> str:
        done = subprocess.run(
            [self.program, "report", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sent(self) -> str:
        """Mail is seen and its report sent; the report's id."""
        prepare(self.folder / "spool.db")
        spool = SpoolFile(self.folder / "spool.db")
        spool.write([spool_row(replace(evaluation(record=RECORD), at=datetime.now(UTC)))])
        spool.close()
        self.report("send", "--now")
        [report] = [json.loads(line) for line in self.report("list", "--json").splitlines()]
        assert [each["state"] for each in report["destinations"]] == ["sent"], report
        return str(report["report_id"])

    def left_alone(self, log: Callable[[], str]) -> str:
        """What `report list` says once the address is suppressed."""

        def found() -> bool:
            return "not written to" in self.report("list")

        said = self.folder / "said"
        eventually(
            found,
            seconds=60,
            what=(
                f"{RECIPIENT} is left"
                f" alone\n{said.read_text() if said.exists() else ''}\n{log()[-4000:]}"
            ),
        )
        return self.report("list")

    def refuse_next(self) -> None:
        """A later report does not go there: the address is left alone."""
        spool = SpoolFile(self.folder / "spool.db")
        spool.write([spool_row(replace(evaluation(record=RECORD), at=datetime.now(UTC)))])
        spool.close()
        self.report("send", "--now")
        states = [
            json.loads(line)["destinations"][0]["state"]
            for line in self.report("list", "--json").splitlines()
        ]
        assert sorted(states) == ["sent", "suppressed"]


@pytest.fixture
def host() -> Iterator[Host]:
    require_live()
    with DnsServer(ZONE) as dns, private_folder("bounces") as folder:
        yield Host(folder, dns)


def notification(recipient: str) -> bytes:
    """A delivery status notification as a far host would write it (RFC 3464)."""
    return f"""\
From: MAILER-DAEMON@mx.legit.example
To: <{recipient}>
Subject: Undeliverable
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

It could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.legit.example

Final-Recipient: rfc822; {RECIPIENT}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user over there

--b--
""".encode()


def in_words(recipient: str) -> bytes:
    """The same as a mail system writes it that knows no RFC 3464: only the null sender of its
    envelope makes it a bounce."""
    words = (
        f"<{RECIPIENT}>:\n203.0.113.9 does not like it.\nRemote host said: 550 5.1.1 no such user"
        " over there\n"
    )
    return (
        f"From: postmaster@mx.legit.example\nTo: <{recipient}>\nSubject: failure"
        f" notice\n\nSorry.\n\n{words}".encode()
    )


# --- Postfix --------------------------------------------------------------------------------------


def by_alias(postfix: Postfix, host: Host) -> None:
    """Aliases of the service's own."""
    etc = postfix.folder / "etc"
    (etc / "own").write_text(
        shown("dmarc-bounces:").replace("/usr/bin/dmarc-milter", str(host.program))
    )
    tool(postfix, "postalias", f"hash:{etc}/own")
    for each in etc.glob("own*"):
        shutil.chown(each, ACCOUNT)
    maps = shown("alias_maps =").partition("=")[2].strip()
    maps = maps.replace("/etc/aliases", f"{etc}/aliases").replace(
        "/etc/dmarc-milter/aliases", f"{etc}/own"
    )
    postfix.set(
        alias_maps=maps,
        recipient_delimiter=shown("recipient_delimiter =").partition("=")[2].strip(),
    )


def by_transport(postfix: Postfix, host: Host) -> None:
    """The second form, which runs as an account of its own."""
    etc = postfix.folder / "etc"
    service = (
        shown("dmarc-bounce unix")
        .replace("/usr/bin/dmarc-milter", str(host.program))
        .replace("user=dmarc-milter", f"user={ACCOUNT}")
    )
    with (etc / "master.cf").open("a") as file:
        file.write(service)
    table = shown("dmarc-bounces@mx.example.com").replace("mx.example.com", "mx.test.example")
    with (etc / "transport").open("a") as file:
        file.write(table)
    tool(postfix, "postmap", f"hash:{etc}/transport")
    lines = [
        shown(name).partition("=")
        for name in ("recipient_delimiter =", "transport_maps =", "local_recipient_maps =")
    ]
    postfix.set(
        **{
            name.strip(): value.strip().replace("/etc/postfix", str(etc))
            for name, _, value in lines
        }
    )


def tool(postfix: Postfix, name: str, table: str) -> None:
    command = [*shlex.split(postfix.command(name)), table]
    subprocess.run(command, check=True, env=os.environ | postfix.environment, capture_output=True)


@contextmanager
def receiving(
    host: Host, attach: Callable[[Postfix, Host], None], next_hop: int
) -> Iterator[Postfix]:
    """A Postfix with the aliases and local recipients of any host, the page's lines, and the way to
    legit.example."""
    extra = {
        "mydestination": "mx.test.example",
        "local_transport": "local:$myhostname",
        "local_recipient_maps": "proxy:unix:passwd.byname $alias_maps",
        "smtpd_recipient_restrictions": "permit_mynetworks, reject_unauth_destination",
        "virtual_mailbox_maps": "",
        "message_size_limit": "10240000",
    }
    with private_postfix(extra=extra) as postfix:
        etc = postfix.folder / "etc"
        (etc / "aliases").write_text("")
        tool(postfix, "postalias", f"hash:{etc}/aliases")
        (etc / "transport").write_text(f"legit.example smtp:[127.0.0.1]:{next_hop}\n")
        tool(postfix, "postmap", f"hash:{etc}/transport")
        postfix.set(alias_maps=f"hash:{etc}/aliases", transport_maps=f"hash:{etc}/transport")
        host.configure(postfix.port)
        attach(postfix, host)
        yield postfix


@pytest.mark.parametrize("attach", [by_alias, by_transport])
def test_a_report_that_bounces_off_postfix_suppresses_its_address(
    host: Host, attach: Callable[[Postfix, Host], None]
) -> None:
    """Our own MTA took it, the destination's says 550: `report list` and `report show` tell why
    nothing goes there any more."""
    refusal = "550 5.1.1 <agg@legit.example>: nobody of that name"
    with (
        smtp_sink(lambda stage, _: refusal if stage == "rcpt" else "") as far,
        receiving(host, attach, far.port) as postfix,
    ):
        report_id = host.sent()
        listed = host.left_alone(postfix.log)
        assert RECIPIENT in listed
        assert "nobody of that name" in listed
        assert "nobody of that name" in host.report("show", report_id)
        assert "status=bounced" in postfix.log()
        host.refuse_next()
        assert not far.mails


@pytest.mark.parametrize(("attach", "write"), [(by_alias, in_words), (by_transport, notification)])
def test_a_bounce_from_another_host_is_taken_by_postfix(
    host: Host, attach: Callable[[Postfix, Host], None], write: Callable[[str], bytes]
) -> None:
    """The far host accepted the report and found out later: its notification comes in by SMTP, to
    an address that must be known here."""
    with smtp_sink() as far, receiving(host, attach, far.port) as postfix:
        host.sent()
        eventually(lambda: far.mails, what=f"the report arrives there\n{postfix.log()[-3000:]}")
        sender = far.mails[0].sender
        local, _, domain = sender.partition("@")
        reply = postfix.send(write(sender), local, domain=domain, mail_from="")
        assert reply.code == 250, reply
        assert "no such user over there" in host.left_alone(postfix.log)
        reply = postfix.send(write(sender), "unknown", domain=domain, mail_from="")
        assert reply.code == 550, "anybody at all is known here, which proves nothing"


# --- Sendmail -------------------------------------------------------------------------------------


def test_a_bounce_is_taken_by_sendmail(host: Host) -> None:
    """By the mailer of the page: the account and the recipient are right."""
    lines = (
        shown("LOCAL_RULE_0")
        + shown("R dmarc-bounces")
        + shown("MAILER_DEFINITIONS")
        + shown("Mdmarcbounce")
    )
    for real, here in (
        ("/usr/bin/dmarc-milter", str(host.program)),
        ("U=dmarc-milter:dmarc-milter", f"U={ACCOUNT}:{ACCOUNT}"),
        ("mx.example.com", "mx.test.example"),
    ):
        assert real in lines
        lines = lines.replace(real, here)
    with smtp_sink() as far, private_sendmail(more=lines) as sendmail:
        host.configure(far.port)
        host.sent()
        local, _, domain = far.mails[0].sender.partition("@")
        assert domain == "mx.test.example"
        with sendmail.connect("203.0.113.7") as smtp:
            smtp.command("EHLO mx.legit.example")
            # The notification's own To says nothing: the recipient of the pipe is enough.
            reply = smtp.transaction(
                in_words("postmaster@mx.test.example"),
                mail_from="",
                recipients=(f"{local}@{domain}",),
            )
        assert reply.code == 250, reply
        listed = host.left_alone(lambda: (sendmail.folder / "traffic").read_text(errors="replace"))
        assert "no such user over there" in listed
