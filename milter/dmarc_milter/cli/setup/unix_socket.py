"""A UNIX socket where the mail server reaches it and the packaged service may make it: its folder,
its group, and the steps that change to it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.checks import host
from dmarc_milter.checks.service import service_account
from dmarc_milter.cli.config.set_value import set_value
from dmarc_milter.cli.setup.files import CannotSetUp, write
from dmarc_milter.config import Config
from dmarc_milter.config.checks import SocketAddress, socket_address
from dmarc_milter.config.instance import FIRST, Instance
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.mta import postfix

FOLDER_MODE = 0o2750
"""The socket in it gets the folder's group by the set-group-ID bit: the service, which has no
privileges, could not give it away. The group may enter, and nobody else."""
QUEUE = Path(postfix.DEFAULTS["queue_directory"])


class Place(NamedTuple):
    """`group`: whose the folder is; "" where systemd makes it. `owner`: who makes the socket."""

    socket: SocketAddress
    group: str = ""
    owner: str = ""
    reason: str = ""

    @property
    def folder(self) -> Path:
        return Path(self.socket.path).parent


def for_postfix(files: postfix.Postfix, config: Config, of: Instance = FIRST) -> Place:
    """Below the queue directory: reached by an smtpd with chroot and without. Its group is that of
    the account that smtpd runs as (postconf(5), mail_owner). Raises CannotSetUp."""
    name = files.value("mail_owner") or "postfix"
    try:
        group = grp.getgrgid(pwd.getpwnam(name).pw_gid).gr_name
    except KeyError:
        raise CannotSetUp(f"there is no account {name}, which is Postfix's mail_owner") from None
    account = service_account(config)
    if account is None:
        raise CannotSetUp(f"there is no account {config.milter.user} ([milter] user)")
    path = files.queue_directory / of.folder_name / "milter.sock"
    chrooted = [service.name for service in files.smtpd() if files.is_chrooted(service)]
    reason = (
        f"master.cf chroots {', '.join(chrooted)} to {files.queue_directory}"
        if chrooted
        else f"below {files.queue_directory} it is reached with chroot and without"
    )
    return Place(SocketAddress("unix", path=str(path)), group, account.pw_name, reason)


def for_sendmail(of: Instance = FIRST) -> Place:
    """Sendmail connects as root."""
    return Place(
        SocketAddress("unix", path=str(of.runtime / "milter.sock")),
        reason="systemd makes this folder, and Sendmail connects as root",
    )


def of_systemd(of: Instance) -> SocketAddress | None:
    """What dmarc-milter.socket listens on, which is the first instance's."""
    return None if of.name else host.listening()


def known_sockets(config: Config, of: Instance = FIRST) -> tuple[SocketAddress, ...]:
    """Where this milter may have been until now: the configuration's socket, systemd's, and the
    places that `setup` chooses."""
    found = [socket_address(config.milter.socket), of_systemd(of) if _is_fd(config) else None]
    folders = (of.runtime, QUEUE / of.folder_name)
    found += [socket_address(f"unix:{folder}/milter.sock") for folder in folders]
    return tuple(one for one in found if one is not None and one.family != "fd")


def _is_fd(config: Config) -> bool:
    return socket_address(config.milter.socket).family == "fd"


def describe(place: Place, config: Config, of: Instance = FIRST, *, is_shown: bool) -> list[str]:
    """Print what is chosen, and with `is_shown` the commands that --apply does itself; the commands
    that come before the mail server's own."""
    print(f"socket: unix:{place.socket.path}: {place.reason}")
    if place.group:
        print(f"group: {place.group}, Postfix's; nobody else may connect")
    for command in _commands(place, config) if is_shown else ():
        print(f"  {command}")
    unit = [
        finding.remedy
        for finding in host.unit_may_write(place.folder / "milter.sock", of=of)
        if finding.remedy
    ]
    for remedy in unit:
        print(f"warning: the service may not write there yet\n  -> {remedy}")
    by_systemd = ["systemctl disable --now dmarc-milter.socket"] if _is_fd(config) else []
    if not of.unit:
        print("the daemon of this configuration must be started again before the mail server")
        return by_systemd
    return [*by_systemd, f"systemctl restart {of.unit}"]


@contextlib.contextmanager
def moved(place: Place, config: Config, path: Path) -> Iterator[None]:
    """The MTA's file is written inside; then the folder is made and the configuration changed. What
    was written there is taken back where any of it fails. Raises CannotSetUp, ConfigError."""
    before = _octets(path)
    yield
    made = bool(place.group) and not place.folder.exists()
    try:
        _make(place)
        _configure(place, config, path)
    except BaseException:
        if before is not None and _octets(path) != before:
            write(path, before.decode("utf-8", "surrogateescape"))
        if made:
            with contextlib.suppress(OSError):
                place.folder.rmdir()
        raise


def _octets(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _commands(place: Place, config: Config) -> Iterator[str]:
    if place.group:
        yield f"install -d -o {place.owner} -g {place.group} -m {FOLDER_MODE:o} {place.folder}"
    yield f"dmarc-milter config set milter.socket unix:{place.socket.path}"
    if config.milter.socket_group:
        yield "dmarc-milter config set milter.socket_group ''"


def _make(place: Place) -> None:
    """As install(1) would; nothing is followed that is not a folder of its own."""
    if not place.group:
        return
    folder = place.folder
    try:
        folder.mkdir(exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            owner, group = pwd.getpwnam(place.owner).pw_uid, grp.getgrnam(place.group).gr_gid
            os.fchown(held, owner, group)
            os.fchmod(held, FOLDER_MODE)
        finally:
            os.close(held)
    except OSError as error:
        raise CannotSetUp(f"{folder}: cannot be made: {error.strerror}") from None


def _configure(place: Place, config: Config, path: Path) -> None:
    try:
        print(set_value(path, "milter.socket", f"unix:{place.socket.path}"))
        if config.milter.socket_group:
            print(set_value(path, "milter.socket_group", ""))
    except OSError as error:
        raise CannotSetUp(f"{path}: cannot be written: {error.strerror}") from None


def openness(socket: SocketAddress) -> Iterator[Finding]:
    """Who may connect to a TCP socket."""
    if socket.family in ("inet", "inet6"):
        yield Finding(
            "note",
            "socket",
            "TCP: every account of this host may connect, and chroot does not matter; a UNIX"
            " socket lets in the mail server alone",
            "dmarc-milter setup --socket unix",
        )
