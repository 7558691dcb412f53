"""The service's account and unit, and the commands that change what they may do."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from dmarc_milter.config import Config
from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.config.instance import FIRST, Instance
from dmarc_milter.core.dmarc.discovery import PublicSuffixes
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain

SERVICE = "dmarc-milter"
"""The account that the packages and units run as."""
UNIT = "dmarc-milter.service"
UNITS = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
"""Those of the administrator first."""
NOT_NAMES = ("localhost", "localhost.localdomain", "localhost.localdomain.localdomain")
OTHER_PORTS = range(8893, 8999)


def service_account(config: Config) -> pwd.struct_passwd | None:
    """[milter] user, else that of the packages, else whoever asks; None for one that is not
    there."""
    wanted = config.milter.user
    try:
        return pwd.getpwnam(wanted or SERVICE)
    except KeyError:
        return None if wanted else pwd.getpwuid(os.geteuid())


def names(config: Config) -> tuple[str, str]:
    """(account, group) of the service, also where it is not there yet."""
    account = service_account(config)
    if account is None:
        return config.milter.user, config.milter.user
    return account.pw_name, group_name(account.pw_gid)


def group_name(number: int) -> str:
    """Of a group; its number where it has no name."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def start(of: Instance) -> str:
    """The command that starts the daemon of this configuration."""
    return f"systemctl start {of.unit}" if of.unit else "dmarc-milter serve"


START_AGAIN = "# start the daemon again"
"""Where no unit is known."""


def restart(of: Instance) -> str:
    """The command that starts the daemon of this configuration again."""
    return f"systemctl restart {of.unit}" if of.unit else START_AGAIN


def then_restart(of: Instance) -> str:
    """Behind a command that a restart follows. Where no unit is known, another instance's must not
    be restarted in its place."""
    return f" && systemctl restart {of.unit}" if of.unit else "  # then start the daemon again"


def drop_in(line: str, folders: tuple[Path, ...] = UNITS, *, of: Instance = FIRST) -> str:
    """The command that adds a line to [Service] of the instance's unit, and of no other's; ""
    where no unit is installed. A file for each setting: what others added stays."""
    if not any((folder / name).exists() for folder in folders for name in of.unit_files):
        return ""
    folder = folders[0] / f"{of.unit}.service.d"
    file = folder / f"{line.partition('=')[0].lower()}.conf"
    write = ">>" if line.startswith("ReadWritePaths") else ">"
    return (
        f"mkdir -p {folder} && printf '%s\\n' '[Service]' {shlex.quote(line)} {write} {file} &&"
        f" systemctl daemon-reload && systemctl restart {of.unit}"
    )


def new_file(path: str, config: Config) -> str:
    """An empty file that the service may read and nobody else, opened in the editor."""
    return f"{_empty(path, config)} && {editor()} {shlex.quote(path)}"


def new_token(path: str, config: Config) -> str:
    """For the dashboard: 32 hexadecimal digits that the service may read and nobody else."""
    digits = "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'"
    return f"{_empty(path, config)} && {digits} > {shlex.quote(path)}"


def new_key(path: str, config: Config) -> str:
    """An RSA key (RFC 8301 3.2) that the service may read and nobody else."""
    return f"{_empty(path, config)} && openssl genrsa -out {shlex.quote(path)} 2048"


def _empty(path: str, config: Config) -> str:
    """An empty file, never in the place of one that is there."""
    _, group = names(config)
    quoted = shlex.quote(path)
    return f"test ! -e {quoted} && install -D -m 640 -g {group} /dev/null {quoted}"


def editor() -> str:
    """The caller's own, or Debian's."""
    return os.environ.get("EDITOR") or "editor"


def install_package(name: str) -> str:
    """Of Debian."""
    return f"apt-get install -y {name}"


def synchronise(
    has: Callable[[str], str | None] = shutil.which,
    lists: tuple[Path, ...] = (
        Path("/etc/systemd/ntp-units.d"),
        Path("/usr/local/lib/systemd/ntp-units.d"),
        Path("/usr/lib/systemd/ntp-units.d"),
        Path("/lib/systemd/ntp-units.d"),
    ),
) -> str:
    """What keeps the clock right; in a container it is the host's affair. timedatectl starts the
    service that a file in `lists` names, and says "NTP not supported" where there is none."""
    is_listed = any(True for folder in lists for _ in folder.glob("*.list"))
    if is_listed and has("timedatectl"):
        return "timedatectl set-ntp true"
    return install_package("chrony")


def free_port(beside: SocketAddress, keep: int = 0) -> int:
    """A TCP port of this host, near the usual one, on which nobody listens now; not `keep`."""
    family = socket.AF_INET6 if beside.family == "inet6" else socket.AF_INET
    for port in OTHER_PORTS:
        if port in (beside.port, keep):
            continue
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            try:
                sock.bind(("::1" if beside.family == "inet6" else "127.0.0.1", port))
            except OSError:
                continue
            return port
    return OTHER_PORTS[-1]


def own_name(suffixes: PublicSuffixes | None = None) -> str:
    """This host's full name where it is known, else a form to fill in."""
    for text in (socket.getfqdn(), socket.gethostname()):
        found = domain.parse(text)
        if (
            isinstance(found, Domain)
            and "." in found.name
            and found.name not in NOT_NAMES
            and not (suffixes is not None and suffixes.is_icann_suffix(found))
        ):
            return found.name
    return "mx.YOUR.DOMAIN"
