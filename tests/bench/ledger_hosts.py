"""What one PostgreSQL takes from several hosts that drain at once.

    python -m bench.ledger_hosts --messages 20000 --hosts 1,2,3

Prints messages a second of each host, and the processor time that the server and the drains spend
on a message.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

from dmarc_milter.core.stored import encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolRow
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation
from fakes.stores import fresh_schema, upgraded
from live.place import private_folder
from live.postgres import Postgres, private_postgres

TICKS = os.sysconf("SC_CLK_TCK")
DOMAINS, SOURCES = 500, 40


def filled(path: Path, number: int, host: int) -> None:
    """A spool with so many messages of the same domains on every host."""
    templates = [from_evaluation(evaluation(f"d{n}.example")) for n in range(DOMAINS)]
    spool = SpoolFile(path)
    for first in range(0, number, 5000):
        rows = []
        for n in range(first, min(first + 5000, number)):
            facts = templates[n * 7919 % DOMAINS]
            changed = type(facts)(
                **{name: getattr(facts, name) for name in facts.__struct_fields__}
                | {"id": f"{host:08x}{n:024x}", "source_ip": f"192.0.2.{n % SOURCES}"}
            )
            rows.append(SpoolRow(changed.id, encode(changed)))
        spool.write(rows)
    spool.close()


def worker(path: str, url: str) -> None:
    """Drain; prints seconds and processor seconds."""
    spool, started = SpoolFile(Path(path)), time.perf_counter()
    with closing(Store(connect(url))) as store:
        drained = drain(spool, store)
    assert not drained.problem, drained
    print(time.perf_counter() - started, time.process_time())


def server_seconds(data: Path) -> float:
    """Processor time so far of the server with this data directory: its processes, and those that
    have ended. Looked at again where one ends meanwhile, as with each connection."""
    main = int((data / "postmaster.pid").read_text().split()[0])
    while True:
        with suppress(FileNotFoundError, ProcessLookupError):
            total = _times(main, 4)
            for each in Path(f"/proc/{main}/task/{main}/children").read_text().split():
                total += _times(int(each), 2)
            return total / TICKS


def _times(process: int, number: int) -> int:
    """utime and stime; with 4 those of children that have ended, too (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 11 + number]))


def measure(server: Postgres, folder: Path, hosts: int, number: int) -> None:
    url = upgraded(fresh_schema(server))
    paths = [folder / f"spool{hosts}-{host}.db" for host in range(hosts)]
    for host, path in enumerate(paths):
        filled(path, number, host)
    before = server_seconds(server.folder / "data")
    commands = [
        [sys.executable, "-m", "bench.ledger_hosts", "--worker", str(p), url] for p in paths
    ]
    drains = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in commands]
    found = [list(map(float, each.communicate()[0].split())) for each in drains]
    spent = server_seconds(server.folder / "data") - before
    rates = ", ".join(f"{number / wall:,.0f}" for wall, _ in found)
    print(
        f"{hosts} hosts: {rates} messages/s; of processor time a message costs the server"
        f" {spent / number / hosts * 1e6:.0f} us, the host"
        f" {sum(cpu for _, cpu in found) / number / hosts * 1e6:.0f} us",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="of each host")
    parser.add_argument("--hosts", default="1,2,3")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(*arguments.worker)
        return
    with private_folder("bench") as folder, private_postgres() as server:
        for hosts in map(int, arguments.hosts.split(",")):
            measure(server, folder, hosts, arguments.messages)


if __name__ == "__main__":
    main()
