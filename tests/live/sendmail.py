"""A private Sendmail from the unpacked package, in a network of its own where that is allowed:
there clients have real addresses."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fakes.daemon import free_port
from live import namespace
from live.place import (
    UNPACKED,
    answers,
    eventually,
    library_path,
    private_folder,
    require_live,
)
from live.smtp import Client, Reply, Smtp

DOMAIN = "test.example"
HOST = f"mx.{DOMAIN}"

ADDRESSES = {"203.0.113.7": "127.0.0.7", "203.0.113.66": "127.0.0.66"}
"""Client addresses, and what stands for each where a network of our own is refused. Test zones name
both."""
ADDRESSES_6 = ("2001:db8::5",)

CONFIGURATION = """\
include(`@ROOT@/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `@HOST@')dnl
define(`QUEUE_DIR', `@FOLDER@/queue')dnl
define(`STATUS_FILE', `@FOLDER@/statistics')dnl
define(`HELP_FILE', `@FOLDER@/helpfile')dnl
define(`ALIAS_FILE', `@FOLDER@/aliases')dnl
define(`confPID_FILE', `@FOLDER@/sendmail.pid')dnl
define(`confDEF_USER_ID', `65534:65534')dnl
define(`confDONT_BLAME_SENDMAIL', `@UNSAFE@')dnl
define(`confTO_IDENT', `0')dnl
define(`confSERVICE_SWITCH_FILE', `@FOLDER@/service.switch')dnl
define(`confCONNECTION_RATE_THROTTLE', `0')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confREFUSE_LA', `1000')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`no_default_msa')dnl
@DAEMONS@
@FILTERS@
define(`LOCAL_MAILER_PATH', `@FOLDER@/deliver.sh')dnl
define(`LOCAL_MAILER_ARGS', `deliver.sh $u')dnl
MODIFY_MAILER_FLAGS(`LOCAL', `-wm+S')dnl
LOCAL_DOMAIN(`@DOMAIN@')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
"""
DAEMONS = """\
DAEMON_OPTIONS(`Family=inet, Name=MTA, Port=@PORT@, Addr=127.0.0.1')dnl
@SIX@
"""
CF = "/usr/share/sendmail/cf/"

UNSAFE = (
    "AssumeSafeChown,GroupWritableDirPathSafe,RunProgramInUnsafeDirPath,RunWritableProgram,"
    "MapInUnsafeDirPath"
)

# Sendmail waits a minute at every start for a host name with a dot. Where the name cannot be set,
# this is put before libc's.
HOST_NAME = """\
#include <string.h>
int gethostname(char *name, size_t length) { strncpy(name, "@HOST@", length); return 0; }
"""

# Sendmail may put -f SENDER first; the user is the last argument. A message counts as delivered
# once it has its final name.
DELIVER = """\
#!/bin/sh
for user; do :; done
new=$(mktemp "@FOLDER@/mail/.new.XXXXXX") && cat > "$new" &&
    mv "$new" "@FOLDER@/mail/$user.$(date +%s%N)"
"""


class Sendmail:
    """A running Sendmail. Mail for anybody at test.example lands in `mail/NAME.TIME`."""

    def __init__(
        self,
        folder: Path,
        *,
        filters: str,
        more: str = "",
        debian: bool = False,
        resolver: str = "",
    ) -> None:
        """`debian`: by Debian's own sendmail.mc. `resolver`: resolv.conf of a Sendmail that asks
        the DNS, in a network of its own."""
        self.folder = folder
        self._debian, self._resolver = debian, resolver
        self.port = free_port()
        self.in_namespace = namespace.allowed()
        self._root = UNPACKED.resolve()
        self._environment = os.environ | library_path()
        self._program = self._root / "usr/libexec/sendmail/sendmail"
        self._process: subprocess.Popen[bytes] | None = None
        self._write_configuration(filters, more)

    def _write_configuration(self, filters: str, more: str) -> None:
        folder = self.folder
        (folder / "queue").mkdir(mode=0o700)
        (folder / "mail").mkdir()
        (folder / "mail").chmod(0o1777)
        files = {
            "aliases": "",
            "helpfile": "",
            "statistics": "",
            "service.switch": f"hosts\tfiles{' dns' if self._resolver else ''}\naliases\tfiles\n",
            "hosts": f"127.0.0.1 {HOST} mx localhost\n::1 localhost\n",
            "resolv.conf": self._resolver or "nameserver 127.0.0.1\n",
            "deliver.sh": DELIVER.replace("@FOLDER@", str(folder)),
        }
        for name, text in files.items():
            (folder / name).write_text(text)
        (folder / "deliver.sh").chmod(0o755)
        values = {
            "@FOLDER@": str(folder),
            "@ROOT@": str(self._root),
            "@HOST@": HOST,
            "@DOMAIN@": DOMAIN,
            "@UNSAFE@": UNSAFE,
            "@DAEMONS@": DAEMONS,
            "@PORT@": str(self.port),
            "@SIX@": (
                f"DAEMON_OPTIONS(`Family=inet6, Name=MTA6, Port={self.port}, Addr=::1')dnl"
                if self.in_namespace
                else "dnl"
            ),
            "@FILTERS@": filters or "dnl",
        }
        text = self._of_debian() if self._debian else CONFIGURATION
        for name, value in values.items():
            text = text.replace(name, value)
        (folder / "t.mc").write_text(text + more)
        self.rebuild()
        if not self.in_namespace:
            (folder / "hostname.c").write_text(HOST_NAME.replace("@HOST@", HOST))
            subprocess.run(
                ["cc", "-shared", "-fPIC", "-o", folder / "hostname.so", folder / "hostname.c"],
                check=True,
            )

    def rebuild(self) -> None:
        """sendmail.cf from t.mc, as `make -C /etc/mail` does; before `start`."""
        m4 = shutil.which("m4") or str(self._root / "usr/bin/m4")
        made = subprocess.run(
            [m4, f"-D_CF_DIR_={self._cf_folder()}", self.folder / "t.mc"],
            capture_output=True,
            check=True,
            env=self._environment,
        )
        assert not made.stderr, made.stderr
        (self.folder / "sendmail.cf").write_bytes(made.stdout)

    def _cf_folder(self) -> str:
        return f"{self.folder}{CF}" if self._debian else f"{self._root}{CF}"

    def _of_debian(self) -> str:
        """Debian's sendmail.mc with the places, ports and users of this test, and nothing else, put
        in; its m4 files are copied, since they name each other by absolute paths."""
        copied = Path(self._cf_folder())
        shutil.copytree(f"{self._root}{CF}", copied)
        for path in (
            *copied.glob("ostype/debian*"),
            *copied.glob("domain/debian*"),
            copied / "debian/sendmail.mc",
        ):
            path.write_text(path.read_text().replace(CF, str(copied) + "/"))
        text = (copied / "debian/sendmail.mc").read_text()
        text = re.sub(r"^(?:DAEMON_OPTIONS|include\(`/etc/mail).*\n", "", text, flags=re.MULTILINE)
        text = text.replace(
            "FEATURE(`access_db', ,", "FEATURE(`access_db', `hash -o -T<TMPF> @FOLDER@/access',"
        ).replace("1000')dnl 1", "10')dnl 1")
        ours = CONFIGURATION[
            CONFIGURATION.index("define(`confDOMAIN_NAME'") : CONFIGURATION.index("MAILER(`local')")
        ]
        ours = (
            re.sub(r"^FEATURE\(`no_default_msa'\)dnl\n", "", ours, flags=re.MULTILINE)
            + "define(`confTRUSTED_USER', `root')dnl\n"
        )
        assert "MAILER_DEFINITIONS" in text
        return text.replace(
            "MAILER_DEFINITIONS",
            ours + "define(`confCW_FILE', `-o @FOLDER@/names')dnl\nMAILER_DEFINITIONS",
        )

    def _command(self, *arguments: str) -> list[str]:
        command = [str(self._program), "-C", f"{self.folder}/sendmail.cf", *arguments]
        if not self.in_namespace:
            return ["/usr/bin/env", f"LD_PRELOAD={self.folder}/hostname.so", *command]
        addresses = [f"--address={address}" for address in (*ADDRESSES, *ADDRESSES_6)]
        mounts = [
            f"--mount={self.folder}/hosts:/etc/hosts",
            f"--mount={self.folder}/resolv.conf:/etc/resolv.conf",
        ]
        return [
            sys.executable,
            namespace.__file__,
            f"--host-name={HOST}",
            *mounts,
            *addresses,
            "--",
            *command,
        ]

    def start(self) -> None:
        quiet = {"stdin": subprocess.DEVNULL, "env": self._environment}
        self.run("-bi")
        with (self.folder / "control.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("-X", f"{self.folder}/traffic", "-bD", "-q1h"),
                stdout=log,
                stderr=log,
                **quiet,  # type: ignore[call-overload]
            )
        eventually(self._listens, seconds=60, what="Sendmail accepts connections")

    def run(self, *arguments: str) -> None:
        """The program with its configuration: -bi is newaliases."""
        with (self.folder / "control.log").open("ab") as log:
            subprocess.run(
                self._command(*arguments),
                check=True,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "control.log").read_text()
        if not self.in_namespace:
            return answers(self.port)
        try:
            namespace.connect(self._process.pid, "127.0.0.1", "127.0.0.1", self.port).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def inside(self, work: Callable[[], object]) -> None:
        """Do this in the network of its own: sockets made then belong to it."""
        assert self._process is not None
        namespace.run(self._process.pid, work)

    def connect(self, address: str) -> Smtp:
        """A connection from that client address, or from the one that stands for it."""
        assert self._process is not None
        if self.in_namespace:
            return Smtp(
                self.port,
                connected=namespace.connect(
                    self._process.pid, address, "::1" if ":" in address else "127.0.0.1", self.port
                ),
            )
        made = socket.create_connection(
            ("127.0.0.1", self.port), timeout=60, source_address=(ADDRESSES[address], 0)
        )
        return Smtp(self.port, connected=made)

    def send(
        self,
        message: bytes,
        to: str,
        *,
        client: Client | None = None,
        mail_from: str = "alice@sender.example",
    ) -> Reply:
        """One message for TO@test.example in a connection of its own; the reply that decided it."""
        client = client or Client()
        with self.connect(client.address) as smtp:
            smtp.command(f"EHLO {client.helo}")
            return smtp.transaction(message, mail_from=mail_from, recipients=(f"{to}@{DOMAIN}",))

    def mailbox(self, user: str) -> list[bytes]:
        """What has been delivered to the user so far, oldest first."""
        return [path.read_bytes() for path in sorted((self.folder / "mail").glob(f"{user}.*"))]

    def delivered(self, user: str, *, seconds: float = 20.0) -> bytes:
        """The only message delivered to the user, waited for."""
        eventually(lambda: self.mailbox(user), seconds=seconds, what=f"mail for {user} delivered")
        (message,) = self.mailbox(user)
        return message

    def held(self) -> dict[str, str]:
        """Queue ids that are quarantined, each with the reason a milter gave (queue files hf*, line
        q)."""
        reasons = {}
        for path in (self.folder / "queue").glob("hf*"):
            reason = re.search(r"^q(.*)$", path.read_text(errors="replace"), re.MULTILINE)
            reasons[path.name[2:]] = reason[1] if reason else ""
        return reasons


@contextmanager
def private_sendmail(
    *, filters: str = "", more: str = "", debian: bool = False, resolver: str = ""
) -> Iterator[Sendmail]:
    """A Sendmail that runs as long as the block. `filters` are INPUT_MAIL_FILTER lines, `more` what
    stands at the end of its .mc."""
    require_live()
    with private_folder("sendmail") as folder:
        sendmail = Sendmail(folder, filters=filters, more=more, debian=debian, resolver=resolver)
        try:
            sendmail.start()
            yield sendmail
        finally:
            sendmail.stop()
