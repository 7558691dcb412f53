"""Listening sockets. We open them ourselves, so that mode, backlog and options are right whatever
libmilter would do."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat

from dmarc_milter.config import ConfigError
from dmarc_milter.config.checks import SocketAddress

BACKLOG = 4096


class CannotListen(Exception):
    """`str()` is one line that says which socket and why."""


def listen(address: SocketAddress, *, mode: int = 0o660, group: str = "") -> socket.socket:
    """A listening socket, non-blocking, without Nagle's delay. Raises CannotListen; ConfigError
    where there is no such group."""
    try:
        match address.family:
            case "unix":
                sock = _unix(address.path, mode, group)
            case "fd":
                sock = _inherited(address.number)
            case _:
                sock = _inet(address)
    except KeyError:
        raise ConfigError(f"[milter] socket_group: there is no group {group}") from None
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason += f"; `{who_listens(address)}` shows who"
        raise CannotListen(f"cannot listen on {describe(address)}: {reason}") from None
    # Workers share it: a blocking accept would hold libmilter's lock in every worker that loses the
    # race.
    sock.setblocking(False)
    return sock


def who_listens(address: SocketAddress) -> str:
    """A command that shows whose socket it is."""
    return (
        f"ss -lxp src {address.path}"
        if address.family == "unix"
        else f"ss -ltnp sport = :{address.port}"
    )


def describe(address: SocketAddress) -> str:
    """As the configuration spells it."""
    match address.family:
        case "unix":
            return f"unix:{address.path}"
        case "fd":
            return f"fd:{address.number}"
        case family:
            return f"{family}:{address.port}@{address.host}"


def close(sock: socket.socket, address: SocketAddress) -> None:
    """Stop listening; a unix socket's path goes too if it is still this socket's."""
    sock.close()
    if address.family == "unix":
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.lstat(address.path).st_mode) and not _answers(address.path):
                os.unlink(address.path)


def never_ready(family: int) -> socket.socket:
    """A listening socket of this family that nobody can reach: put in the place of the real one, it
    ends the taking of connections."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_UNIX:
        sock.bind(b"")  # autobind: a fresh abstract name
    else:
        sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    sock.listen(1)
    sock.setblocking(False)
    return sock


def _inet(address: SocketAddress) -> socket.socket:
    family = socket.AF_INET6 if address.family == "inet6" else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _tune(sock)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _tune(sock: socket.socket) -> None:
    """Options that accepted sockets inherit."""
    # libmilter never sets TCP_NODELAY: with Nagle and delayed acknowledgements each message waits
    # 40 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A half-open connection of a vanished MTA is noticed: libmilter's pool build looks at idle ones
    # every 10 minutes only.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 120), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _inherited(number: int) -> socket.socket:
    """A socket that systemd (or a test) opened and passed on."""
    os.fstat(number)
    sock = socket.socket(fileno=os.dup(number))
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise OSError(errno.EINVAL, "is not a listening socket")
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        _tune(sock)
    return sock


def _unix(path: str, mode: int, group: str) -> socket.socket:
    gid = grp.getgrnam(group).gr_gid if group else -1
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777)  # nobody connects before mode and group are right
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    try:
        _give(path, mode, gid)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        os.unlink(path)
        raise
    return sock


def _give(path: str, mode: int, gid: int) -> None:
    """Group and mode of the socket itself, whatever else gets that name meanwhile."""
    held = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(held).st_mode):
            raise OSError(errno.EEXIST, "something else was put in the socket's place")
        if gid >= 0:
            _chgrp(f"/proc/self/fd/{held}", gid)
        os.chmod(f"/proc/self/fd/{held}", mode)
    finally:
        os.close(held)


def _chgrp(path: str, gid: int) -> None:
    """The hardened unit may not, whatever groups its account is in: it sees no others' groups."""
    try:
        os.chown(path, -1, gid)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        raise OSError(
            error.errno,
            f"the service may not give it to [milter] socket_group {grp.getgrgid(gid).gr_name};"
            " with socket_group empty it gets the group of its folder, which"
            " `dmarc-milter setup --socket unix` shows how to make",
        ) from None


def _clear_stale(path: str) -> None:
    """Remove what a dead daemon left behind: only a socket, never through a link, and only if
    nobody answers there."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(kind):
        raise OSError(errno.ELOOP, "the path is a symbolic link, which is refused")
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EEXIST, "the path exists and is not a socket")
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "another program listens there")
    os.unlink(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        # EAGAIN: its queue is full, so somebody has it open
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)
