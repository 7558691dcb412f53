"""Files and folders as the service's account sees them, whoever asks."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.checks.configuration import SERVICE
from dmarc_milter.config import Config
from dmarc_milter.config.checks import socket_address
from dmarc_milter.config.paths import spool_path
from dmarc_milter.config.secret_files import FILES
from dmarc_milter.core.check_finding import Finding

MTA_ACCOUNTS = ("postfix", "smmsp")
"""Who connects to the socket: Postfix's smtpd, Sendmail's."""


def service_account(config: Config) -> pwd.struct_passwd | None:
    """[milter] user, else that of the packages, else whoever asks; None for one that is not
    there."""
    wanted = config.milter.user
    try:
        return pwd.getpwnam(wanted or SERVICE)
    except KeyError:
        return None if wanted else pwd.getpwuid(os.geteuid())


def rights(config: Config, file: Path) -> Iterator[Finding]:
    """Whether the service can read what it must read and write what it must write."""
    account = service_account(config)
    if account is None:
        yield Finding(
            "error",
            "account",
            f"there is no account {config.milter.user}",
            f"adduser --system --group --no-create-home {config.milter.user}",
        )
        return
    if os.geteuid() not in (0, account.pw_uid):
        yield Finding(
            "note",
            "account",
            f"run as root to see files as {account.pw_name} sees them",
            "sudo dmarc-milter doctor",
        )
        return
    found = [*_unreadable(config, file, account), *_unwritable(config, account)]
    yield from found or [
        Finding("ok", "account", f"{account.pw_name} can read and write all that it needs")
    ]
    yield from _mta_may_connect(config)


def _unreadable(config: Config, file: Path, account: pwd.struct_passwd) -> Iterator[Finding]:
    group = grp.getgrgid(account.pw_gid).gr_name
    named = [
        (f"[{section}] {key}", getattr(getattr(config, section), key)) for section, key in FILES
    ]
    named += [
        ("the configuration", str(file)),
        ("[dmarc] suffix_list", config.dmarc.suffix_list),
    ]
    for what, path in named:
        if path and not _may(account, path, os.R_OK):
            there = os.path.exists(path)
            yield Finding(
                "error",
                "account",
                f"{what}: {path} cannot be read by {account.pw_name}"
                if there
                else f"{what}: {path} is not there",
                f"chgrp {group} {path} && chmod g+r {path}" if there else f"make {path}",
            )


def _unwritable(config: Config, account: pwd.struct_passwd) -> Iterator[Finding]:
    places = {"spool": spool_path(config)}
    if config.store.url.startswith("sqlite:///"):
        places["store"] = Path(config.store.url.removeprefix("sqlite:///"))
    for what, path in places.items():
        wanted = [path.parent, *(one for one in (path,) if path.exists())]
        for one in wanted:
            if one.exists() and not _may(account, one, os.R_OK | os.W_OK):
                yield Finding(
                    "error",
                    what,
                    f"{one} cannot be written by {account.pw_name}",
                    f"chown {account.pw_name} {one}",
                )


def _mta_may_connect(config: Config) -> Iterator[Finding]:
    """A UNIX socket's group must be one that the MTA's account is in."""
    address, group = socket_address(config.milter.socket), config.milter.socket_group
    if address.family != "unix" or int(config.milter.socket_mode, 8) & 0o002:
        return
    try:
        members = grp.getgrnam(group) if group else None
    except KeyError:
        yield Finding(
            "error",
            "socket",
            f"[milter] socket_group: there is no group {group}",
            f"addgroup --system {group}",
        )
        return
    if members is None:
        members = _group_of_folder(Path(address.path).parent)
    if members is None:
        account = service_account(config)
        members = grp.getgrgid(account.pw_gid) if account else None
    for name in MTA_ACCOUNTS:
        with contextlib.suppress(KeyError):
            mta = pwd.getpwnam(name)
            if members is not None and members.gr_gid not in _groups(mta):
                yield Finding(
                    "error",
                    "socket",
                    f"{name}, who must connect to {address.path}, is not in the group"
                    f" {members.gr_name}",
                    f"adduser {name} {members.gr_name}, and restart the mail server",
                )


def _group_of_folder(folder: Path) -> grp.struct_group | None:
    """The group that a socket gets there by the set-group-ID bit (mkdir(2)); None without it."""
    try:
        held = folder.stat()
        return grp.getgrgid(held.st_gid) if held.st_mode & stat.S_ISGID else None
    except (OSError, KeyError):
        return None


def _groups(account: pwd.struct_passwd) -> list[int]:
    return os.getgrouplist(account.pw_name, account.pw_gid)


def _may(account: pwd.struct_passwd, path: str | Path, mode: int) -> bool:
    """As that account, access lists and folders on the way included."""
    with _become(account):
        return os.access(path, mode, effective_ids=True)


@contextlib.contextmanager
def _become(account: pwd.struct_passwd) -> Iterator[None]:
    """For a moment, and the whole process: for commands, which have one thread."""
    if os.geteuid() != 0 or account.pw_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups(_groups(account))
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
