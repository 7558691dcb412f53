"""A disk that stalls, under the whole daemon: recorded before answered, and no answer later than a
second for the record's sake (docs/design.md, The ledger)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.daemon import Daemon, wait_for
from fakes.dns_server import DnsServer

pytestmark = [pytest.mark.alone, pytest.mark.slow]
STALL = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/types.h>
#include <unistd.h>
static void stall(void) { if (access("%(flag)s", F_OK) == 0) sleep(10); }
#define WRITE(name) ssize_t name(int fd, const void *octets, size_t size, off_t at) { \\
    static ssize_t (*real)(int, const void *, size_t, off_t); \\
    if (!real) real = dlsym(RTLD_NEXT, #name); \\
    stall(); return real(fd, octets, size, at); }
WRITE(pwrite)
WRITE(pwrite64)
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    stall(); return real(fd); }
"""
ZONE = {
    "d.example": {"TXT": ["v=spf1 ip4:192.0.2.7 -all"]},
    "_dmarc.d.example": {"TXT": ["v=DMARC1; p=reject"]},
}


@pytest.fixture
def stalling(tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    """One worker whose writes at a place and fdatasync take ten seconds while the file is there."""
    flag, source, library = (tmp_path / name for name in ("stall", "stall.c", "stall.so"))
    source.write_text(STALL % {"flag": flag})
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    with DnsServer(ZONE, record=False) as dns:
        daemon = Daemon(
            tmp_path, {"milter": {"workers": 1}, "dns": {"nameservers": [dns.nameserver]}}
        )
        daemon.environment["LD_PRELOAD"] = str(library)
        with daemon:
            yield daemon, flag


def answered(daemon: Daemon) -> float:
    """Seconds from the end of a message to its answer, which is the right one."""
    with daemon.client() as mta:
        mta.connect("mx.d.example", "192.0.2.7")
        mta.helo("mx.d.example")
        mta.mail("<a@d.example>")
        mta.rcpt("<v@example.com>")
        mta.header("From", " a@d.example")
        mta.eoh()
        mta.body(b"Hello\r\n")
        began = time.monotonic()
        answer = mta.eom()
    assert any("dmarc=pass" in value for value in answer.values("Authentication-Results"))
    return time.monotonic() - began


def test_a_disk_that_stalls_holds_no_answer_for_more_than_a_second(
    stalling: tuple[Daemon, Path],
) -> None:
    """STO-02: the first messages wait their second, the next not at all; no worker is killed, and
    all of them are in the spool when the disk works again."""
    daemon, flag = stalling
    answered(daemon)
    workers = daemon.workers()
    flag.touch()
    with ThreadPoolExecutor(8) as executor:
        took = list(executor.map(lambda _: answered(daemon), range(24)))
    assert max(took) < 1.0 + 1.0  # its own time and that of seven others
    flag.unlink()
    assert wait_for(lambda: "spool works again" in daemon.text(), 40)
    assert daemon.workers() == workers
    assert not daemon.events("worker_killed")
    answered(daemon)
