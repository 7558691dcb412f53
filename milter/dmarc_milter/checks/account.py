"""Files and folders as the service's account sees them, whoever asks."""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.checks import folders, service
from dmarc_milter.config import Config, root_files
from dmarc_milter.config.checks import socket_address
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.instance import Instance, instance
from dmarc_milter.config.secret_files import FILES
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.ledger.ownership import Kind, why_not
from dmarc_milter.mta import sendmail_cf

AS_ROOT = "sudo dmarc-milter doctor"
MTA_ACCOUNTS = ("postfix",)
"""Who connects to the socket: Postfix's smtpd. Sendmail does it as root, or as its RunAsUser."""


def rights(config: Config, file: Path) -> Iterator[Finding]:
    """Whether the service can read what it must read and write what it must write."""
    account = service.service_account(config)
    if account is None:
        yield Finding(
            "error",
            "account",
            f"there is no account {config.milter.user}",
            f"adduser --system --group --no-create-home {shlex.quote(config.milter.user)}",
        )
        return
    if os.geteuid() not in (0, account.pw_uid):
        yield Finding(
            "note",
            "account",
            f"run as root to see files as {account.pw_name} sees them",
            AS_ROOT,
        )
        return
    found = [*_unreadable(config, file, account), *_unwritable(config, account, instance(file))]
    yield from found or [
        Finding("ok", "account", f"{account.pw_name} can read and write all that it needs")
    ]
    yield from _mta_may_connect(config, instance(file))


def _unreadable(config: Config, file: Path, account: pwd.struct_passwd) -> Iterator[Finding]:
    named = {
        f"{section}.{key}": getattr(getattr(config, section), key)
        for section, key in (*FILES, ("dmarc", "suffix_list"))
    }
    for key, path in {"": str(file), **named}.items():
        if not path or _may(account, path, os.R_OK):
            continue
        what = f"[{key.replace('.', '] ')}" if key else "the configuration"
        text = f"{what}: {path} cannot be read by {account.pw_name}"
        remedy = AS_ROOT
        if folders.is_missing(Path(path)):
            text, remedy = f"{what}: {path} is not there", _made(config, key, path)
        elif os.path.exists(path):
            remedy = _readable(config, file, account, key)
        yield Finding("error", "account", text, remedy)


def _readable(config: Config, file: Path, account: pwd.struct_passwd, key: str) -> str:
    """What lets the account read it. A secret below a folder that is closed to it, such as /root,
    is copied to the configuration's folder, so that the folder stays closed; so is one that is
    another account's, such as OpenDKIM's, who would lose it with its group."""
    section, _, name = key.partition(".")
    path = str(getattr(getattr(config, section), name)) if key else str(file)
    if _is_chosen_by_others(Path(path), account):
        return f"namei -l {shlex.quote(path)}"
    group = shlex.quote(service.group_name(account.pw_gid))
    closed = list(_closed(account, Path(path)))
    settings = file.absolute().parent
    if key and (set(closed) - {settings} or _is_anothers(Path(path), account)):
        copy = _copy(file, section, name)
        return (
            f"test ! -e {shlex.quote(copy)} && install -m 640 -g {group} {shlex.quote(path)}"
            f" {shlex.quote(copy)} && {set_command(key, copy)}"
        )
    quoted = shlex.quote(path)
    if closed and (closed != [settings] or not _holds_settings(settings)):
        return f"namei -l {quoted}"  # such as /root: whoever closed it knows why
    opened = [_opened(group, place) for place in closed]
    return " && ".join([*opened, f"chgrp {group} {quoted} && chmod g+r {quoted}"])


def _is_chosen_by_others(path: Path, account: pwd.struct_passwd) -> bool:
    """Whether somebody else than root says which file that is: by a link, or because he may put one
    there before the remedy is typed. What root opens or copies then could be any secret."""
    if os.geteuid() != 0:
        return False
    try:
        root_files.read_bytes(path)
    except OSError:
        return True
    return account.pw_uid != 0 and _may(account, path.absolute().parent, os.W_OK)


def _opened(group: str, folder: Path) -> str:
    """`-h`: the account may own what is above, and put a link there meanwhile."""
    quoted = shlex.quote(str(_where_root_points(folder)))
    return f"chgrp -h {group} {quoted} && chmod g+x {quoted}"


def _copy(file: Path, section: str, name: str) -> str:
    """A name beside the configuration that says which option it is of, and that nobody has."""
    stem = f"{section}-{name.removesuffix('_file').replace('_', '-')}"
    places = (file.resolve().with_name(f"{stem}{number or ''}") for number in itertools.count())
    return str(next(place for place in places if not os.path.lexists(place)))


def _is_anothers(path: Path, account: pwd.struct_passwd) -> bool:
    """Whether it belongs to an account, or to a group, that is neither root's nor the service's."""
    found = path.stat()
    return found.st_uid not in (0, account.pw_uid) or found.st_gid not in (0, account.pw_gid)


def _holds_settings(folder: Path) -> bool:
    """A folder of a configuration, not one that it happens to lie in."""
    return folder.name.startswith("dmarc-milter")


def _closed(account: pwd.struct_passwd, path: Path) -> Iterator[Path]:
    """The folders on the way that the account may not enter."""
    for folder in reversed(path.absolute().parents):
        if folder.exists() and not _may_enter(account, folder):
            yield folder


def _may_enter(account: pwd.struct_passwd, folder: Path) -> bool:
    """By the folder itself, whatever is above it."""
    with contextlib.suppress(OSError):
        held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _become(account):
                return os.access(f"/proc/self/fd/{held}", os.X_OK, effective_ids=True)
        finally:
            os.close(held)
    return False


def _made(config: Config, key: str, path: str) -> str:
    """What makes the file that a key names."""
    match key:
        case "reporting.dkim_key_file":
            return service.new_key(path, config)
        case "dmarc.suffix_list":
            return set_command(key, "")
        case "web.token_file":
            return service.new_token(path, config)
        case _:
            return service.new_file(path, config)


def _unwritable(config: Config, account: pwd.struct_passwd, of: Instance) -> Iterator[Finding]:
    """A file of another program is left to checks/storage.py, which names another."""
    for what, path in folders.paths(config).items():
        for one in (path.parent, *(() if why_not(path, what) else (path,))):
            if folders.is_missing(one) or _may(account, one, os.R_OK | os.W_OK):
                continue
            text = f"{one} cannot be written by {account.pw_name}"
            seen = os.path.exists(one)
            remedy = _writable(config, account, what, one, of) if seen else AS_ROOT
            yield Finding("error", what, text, remedy)


def _writable(
    config: Config, account: pwd.struct_passwd, what: Kind, one: Path, of: Instance
) -> str:
    """Folders that hold anything else keep their owner and stay closed: another file is named.
    `chown -h`: a link that the account puts there meanwhile is not followed."""
    one = _where_root_points(one)
    closed = list(_closed(account, one))
    owned = _owner(one) != account.pw_uid
    given = [*closed, *([one] if one.is_dir() and owned else [])]
    if not all(folders.may_be_given(each, config, account.pw_uid, of) for each in given) or not (
        one.is_dir() or folders.file_may_be_given(one, what, config, account.pw_uid, of)
    ):
        return folders.elsewhere(what, of)
    group = shlex.quote(service.group_name(account.pw_gid))
    quoted, bits = shlex.quote(str(one)), "u+rwx" if one.is_dir() else "u+rw"
    steps = [_opened(group, place) for place in closed]
    steps += [f"chown -h {account.pw_name} {quoted}"] if owned else []
    steps += [] if _has(one, bits) else [f"chmod {bits} {quoted}"]
    return " && ".join(steps)


def _where_root_points(path: Path) -> Path:
    """What a link leads to that root made."""
    is_roots = path.is_symlink() and path.lstat().st_uid == 0
    return Path(os.path.realpath(path)) if is_roots else path


def _owner(path: Path) -> int:
    return path.stat().st_uid


def _has(path: Path, bits: str) -> bool:
    wanted = 0o700 if bits == "u+rwx" else 0o600
    return path.stat().st_mode & wanted == wanted


def _mta_may_connect(config: Config, of: Instance) -> Iterator[Finding]:
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
            f"addgroup --system {shlex.quote(group)}",
        )
        return
    if members is None:
        members = _group_of_folder(Path(address.path).parent)
    if members is None:
        account = service.service_account(config)
        members = grp.getgrgid(account.pw_gid) if account else None
    for name, unit in _mta_accounts(config):
        with contextlib.suppress(KeyError):
            mta = pwd.getpwnam(name)
            if members is not None and members.gr_gid not in _groups(mta):
                yield Finding(
                    "error",
                    "socket",
                    f"{name}, who must connect to {address.path}, is not in the group"
                    f" {members.gr_name}",
                    f"adduser {name} {members.gr_name} && systemctl restart {unit}"
                    if members.gr_gid
                    else _given_to(mta, Path(address.path).parent, of),
                )
            else:
                yield from _closed_socket(mta, Path(address.path), of)


def _closed_socket(mta: pwd.struct_passwd, path: Path, of: Instance) -> Iterator[Finding]:
    """The one that is open now, whatever the configuration says: the mail server's log has
    "Permission denied"."""
    try:
        held = path.lstat()
    except OSError:
        return
    if not stat.S_ISSOCK(held.st_mode) or _may(mta, path, os.W_OK):
        return
    yield Finding(
        "error",
        "socket",
        f"{mta.pw_name} may not connect to {path}: mode {stat.S_IMODE(held.st_mode):04o}, group"
        f" {service.group_name(held.st_gid)}",
        service.restart(of)
        if not held.st_mode & stat.S_IWGRP or held.st_gid not in _groups(mta)
        else f"namei -l {shlex.quote(str(path))}",
    )


def _given_to(mta: pwd.struct_passwd, folder: Path, of: Instance) -> str:
    """The socket gets a group of the mail server's: nobody becomes a member of root's for it."""
    group = service.group_name(mta.pw_gid)
    if _group_of_folder(folder) is None:
        return set_command("milter.socket_group", group)
    return f"chgrp {group} {shlex.quote(str(folder))}{service.then_restart(of)}"


def _mta_accounts(config: Config) -> Iterator[tuple[str, str]]:
    """(account, systemd's unit) of each mail server that may be here."""
    for name in MTA_ACCOUNTS:
        yield name, name
    text = sendmail_cf.read(Path(config.authentication.sendmail_cf)) or ""
    for option, value in sendmail_cf.options(text):
        if option == "runasuser" and value and value.partition(":")[0] != "root":
            yield re.split("[:.]", value)[0], "sendmail"


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
