"""Other filters from Debian's packages, unpacked by tools/other_filters.sh, as processes of their
own: OpenDKIM, OpenDMARC, SpamAssassin with its milter, Amavis. Rspamd is bench.peers'."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.peers import PEERS
from bench.running import process
from fakes.daemon import free_port
from live.place import REPOSITORY

FILTERS = REPOSITORY / ".test/filters"
"""SpamAssassin and Amavis with their libraries."""
ACCOUNT = "nobody"
INSIDE = """
set -eu
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$1/etc:$2/etc:/etc" /etc
mount -t overlay overlay -o "lowerdir=$2/usr:/usr" /usr
shift 2
exec "$@"
"""
"""Their programs and files at their own places, for one process."""


def require_filters() -> None:
    """`make other-filters` unpacks them and asks for these tests."""
    if not os.environ.get("DMARC_MILTER_FILTERS"):
        pytest.skip("make other-filters runs this")
    for path in (PEERS / "usr/sbin/opendkim", FILTERS / "usr/sbin/spamd"):
        assert path.exists(), "run tools/other_filters.sh and tools/bench_peers.sh first"


@contextmanager
def opendkim(folder: Path, nameserver: str, lines: str) -> Iterator[str]:
    """By Debian's opendkim.conf and these lines; its endpoint for Postfix."""
    port = free_port()
    debian = (
        "Syslog no\nCanonicalization relaxed/simple\nOversignHeaders From\nUMask 007\n"
        f"Nameservers {nameserver.partition(':')[0]}\n"
    )
    path = folder / f"opendkim.{port}.conf"
    path.write_text(
        f"{debian}UserID {ACCOUNT}\nBackground no\nSocket inet:{port}@127.0.0.1\n{lines}"
    )
    command = [str(PEERS / "usr/sbin/opendkim"), "-f", "-x", str(path)]
    with process(command, ("127.0.0.1", port), env=_libraries()):
        yield f"inet:127.0.0.1:{port}"


@contextmanager
def opendmarc(folder: Path) -> Iterator[str]:
    """By Debian's opendmarc.conf."""
    port = free_port()
    path = folder / "opendmarc.conf"
    path.write_text(
        f"Syslog no\nUMask 0002\nUserID {ACCOUNT}\nBackground no\nSocket inet:{port}@127.0.0.1\n"
        "PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat\n"
    )
    command = [str(PEERS / "usr/sbin/opendmarc"), "-f", "-c", str(path)]
    with process(command, ("127.0.0.1", port), env=_libraries()):
        yield f"inet:127.0.0.1:{port}"


def _libraries() -> dict[str, str]:
    folders = f"{PEERS}/usr/lib/{os.uname().machine}-linux-gnu:{PEERS}/usr/lib"
    return os.environ | {"LD_LIBRARY_PATH": folders}


@contextmanager
def spamassassin(folder: Path, local_cf: str) -> Iterator[str]:
    """spamd without the network, and spamass-milter before it."""
    port, socket = free_port(), folder / "spamass.sock"
    _etc(folder, {"spamassassin/local.cf": local_cf})
    spamd = ["spamd", "-L", "-x", "-u", ACCOUNT, "-i", "127.0.0.1", "-p", str(port), "-m", "1"]
    spamd += [f"--helper-home-dir={folder}", "-s", f"{folder}/spamd.log"]
    milter = ["spamass-milter", "-p", str(socket), "--", "-p", str(port)]
    with (
        process(_inside(folder, spamd), ("127.0.0.1", port)),
        process(_inside(folder, milter), str(socket)),
    ):
        socket.chmod(0o666)
        yield f"unix:{socket}"


@contextmanager
def amavis(folder: Path, back: int, lines: str = "") -> Iterator[int]:
    """By Debian's files and these lines of 50-user; it gives mail back at the port `back`. Its own
    port."""
    port, home = free_port(), folder / "amavis"
    home.mkdir()
    (home / "tmp").mkdir()
    for path in (home, home / "tmp"):
        shutil.chown(path, ACCOUNT)
    user = f"""use strict;
$daemon_user = '{ACCOUNT}'; $daemon_group = 'nogroup'; $MYHOME = '{home}'; $TEMPBASE = '{home}/tmp';
$db_home = '{home}'; $enable_db = 0; $QUARANTINEDIR = '{home}'; $helpers_home = '{home}';
$lock_file = '{home}/lock'; $pid_file = '{home}/pid'; $unix_socketname = undef; $max_servers = 1;
$inet_socket_port = {port}; $forward_method = 'smtp:[127.0.0.1]:{back}'; $DO_SYSLOG = 0;
$notify_method = $forward_method; $sa_local_tests_only = 1; $log_level = 2; $LOGFILE = '{home}/log';
$myhostname = 'mx.test.example'; $mydomain = 'test.example'; @bypass_virus_checks_maps = (1);
{lines}
1;
"""
    _etc(folder, {"amavis/conf.d/50-user": user, "mailname": "mx.test.example\n"})
    with process(_inside(folder, ["amavisd", "foreground"]), ("127.0.0.1", port)):
        yield port


def _etc(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _inside(folder: Path, command: Sequence[str]) -> list[str]:
    return [
        *("unshare", "--mount", "sh", "-c", INSIDE, "sh"),
        *(str(folder), str(FILTERS.resolve()), *command),
    ]
