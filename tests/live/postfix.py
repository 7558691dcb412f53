"""A private Postfix from the unpacked package: its own ports, queue, log and mailboxes; the
machine's own mail system is left alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakes.daemon import free_port
from live.place import (
    NOBODY,
    UNPACKED,
    answers,
    eventually,
    library_path,
    private_folder,
    require_live,
)
from live.smtp import Client, Reply, Smtp

DOMAIN = "test.example"

SERVICES = """\
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
local     unix  - n n - - local
virtual   unix  - n n - - virtual
lmtp      unix  - - n - - lmtp
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A running Postfix. Mail for anybody at test.example lands in `mail/NAME/new`."""

    def __init__(self, folder: Path, *, milters: str, extra: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.submission_port = free_port()
        """As -o milter_macro_daemon_name=ORIGINATING in Debian's master.cf has it for
        submission."""
        self._programs = UNPACKED.resolve()
        self.environment = library_path()
        self._write_configuration(milters, extra or {})

    def _write_configuration(self, milters: str, extra: dict[str, str]) -> None:
        etc = self.folder / "etc"
        for name in ("etc", "queue", "data", "mail"):
            (self.folder / name).mkdir(mode=0o755)
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.folder / "mail", NOBODY)
        for name in ("postfix-files", "post-install", "postfix-script"):
            shutil.copy(self._programs / "etc/postfix" / name, etc)
        settings = self._settings() | {"smtpd_milters": milters} | extra
        (etc / "main.cf").write_text(
            "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        listeners = f"127.0.0.1:{self.port} inet n - n - - smtpd\n"
        listeners += (
            f"127.0.0.1:{self.submission_port} inet n - n - - smtpd -o"
            " milter_macro_daemon_name=ORIGINATING\n"
        )
        (etc / "master.cf").write_text(listeners + SERVICES)

    def _settings(self) -> dict[str, str]:
        root, folder = self._programs, self.folder
        return {
            "compatibility_level": "3.6",
            "config_directory": f"{folder}/etc",
            "queue_directory": f"{folder}/queue",
            "data_directory": f"{folder}/data",
            "daemon_directory": f"{root}/usr/lib/postfix/sbin",
            "command_directory": f"{root}/usr/sbin",
            "shlib_directory": f"{root}/usr/lib/postfix",
            "meta_directory": f"{folder}/etc",
            "sendmail_path": f"{root}/usr/sbin/sendmail",
            "mailq_path": f"{root}/usr/bin/mailq",
            "newaliases_path": f"{root}/usr/bin/newaliases",
            "maillog_file": f"{folder}/maillog",
            "maillog_file_prefixes": str(folder),
            "import_environment": (
                "LD_LIBRARY_PATH MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C POSTLOG_SERVICE"
                " POSTLOG_HOSTNAME"
            ),
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "all",
            "myhostname": f"mx.{DOMAIN}",
            "mynetworks": "127.0.0.0/8",
            "mydestination": DOMAIN,
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "local_transport": "virtual",
            "virtual_mailbox_base": f"{folder}/mail",
            "virtual_mailbox_maps": "static:user/",
            "virtual_uid_maps": f"static:{NOBODY}",
            "virtual_gid_maps": f"static:{NOBODY}",
            "virtual_mailbox_limit": "0",
            "message_size_limit": "100000000",
            "smtpd_recipient_restrictions": "reject_unauth_destination",
            "smtpd_authorized_xclient_hosts": "127.0.0.1",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_peername_lookup": "no",
            "disable_dns_lookups": "yes",
        }

    def _postfix(self, command: str, *, check: bool = True) -> None:
        # The log closes standard error late: a pipe would be held open by the daemons.
        with (self.folder / "control.log").open("ab") as log:
            program = self._programs / "usr/sbin/postfix"
            run = subprocess.run(
                [program, "-c", self.folder / "etc", command],
                check=False,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if check and run.returncode:
            raise AssertionError(
                f"postfix {command}: {(self.folder / 'control.log').read_text()}\n{self.log()}"
            )

    def command(self, name: str) -> str:
        """A program of this Postfix (postconf, postqueue, ...) with its configuration, for a shell;
        it needs `environment`."""
        return f"{self._programs}/usr/sbin/{name} -c {self.folder}/etc"

    def start(self) -> None:
        self._postfix("start")
        eventually(lambda: answers(self.port), what="Postfix accepts connections")

    def stop(self) -> None:
        self._postfix("abort", check=False)

    def set(self, **settings: str) -> None:
        """Change main.cf while Postfix runs; new sessions see it."""
        with (self.folder / "etc/main.cf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self._postfix("reload")

    def log(self) -> str:
        path = self.folder / "maillog"
        return path.read_text(errors="replace") if path.exists() else ""

    def send(
        self,
        message: bytes,
        to: str,
        *,
        client: Client | None = None,
        mail_from: str = "alice@sender.example",
        domain: str = DOMAIN,
    ) -> Reply:
        """One message for TO@test.example in a connection of its own; the reply that decided it."""
        with Smtp(self.port) as smtp:
            smtp.become(client or Client())
            return smtp.transaction(message, mail_from=mail_from, recipients=(f"{to}@{domain}",))

    def mailbox(self, user: str) -> list[bytes]:
        """What has been delivered to the user so far, oldest first, with LF line ends."""
        return [
            path.read_bytes()
            for path in sorted((self.folder / "mail").glob("user/new/*"))
            if delivered_to(path) == user
        ]

    def delivered(self, user: str, *, seconds: float = 20.0) -> bytes:
        """The only message delivered to the user, waited for."""
        eventually(
            lambda: self.mailbox(user),
            seconds=seconds,
            what=f"mail for {user} delivered\n{self.log()[-2000:]}",
        )
        (message,) = self.mailbox(user)
        return message

    def held(self) -> list[str]:
        """Queue ids in the hold queue."""
        return sorted(
            path.name for path in (self.folder / "queue/hold").glob("**/*") if path.is_file()
        )

    def waiting(self) -> list[str]:
        """Queue ids accepted but not yet delivered."""
        queues = ("incoming", "active", "deferred", "maildrop")
        return sorted(
            path.name
            for queue in queues
            for path in (self.folder / "queue" / queue).glob("**/*")
            if path.is_file()
        )


def delivered_to(path: Path) -> str:
    """The local part that virtual(8) noted in the Delivered-To field it puts on top."""
    found = re.search(rb"^Delivered-To: ([^@\n]*)@", path.read_bytes(), re.MULTILINE)
    return found[1].decode() if found else ""


@contextmanager
def private_postfix(*, milters: str = "", extra: dict[str, str] | None = None) -> Iterator[Postfix]:
    """A Postfix that runs as long as the block. `milters` is the value of smtpd_milters."""
    require_live()
    with private_folder("postfix") as folder:
        postfix = Postfix(folder, milters=milters, extra=extra)
        try:
            postfix.start()
            yield postfix
        finally:
            postfix.stop()
