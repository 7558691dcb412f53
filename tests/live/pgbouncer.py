"""A private pgbouncer in front of a PostgreSQL, with Debian's configuration but for places, ports
and accounts."""

from __future__ import annotations

import os
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
    give_up,
    library_path,
    private_folder,
)
from live.postgres import Postgres

PROGRAM = Path("usr/sbin/pgbouncer")
DEBIANS = Path("etc/pgbouncer/pgbouncer.ini")


@contextmanager
def private_pgbouncer(server: Postgres, pool_mode: str, database: str) -> Iterator[str]:
    """The URL of `database` through the pooler. `pool_mode` "" keeps Debian's."""
    root = next((place for place in (UNPACKED, Path("/")) if (place / PROGRAM).exists()), None)
    if root is None:
        give_up("run tools/setup_tests.sh (make test does) first")
        raise AssertionError
    with private_folder("pgbouncer") as folder:
        port, config = free_port(), folder / "pgbouncer.ini"
        (folder / "userlist.txt").write_text('"t" "secret"\n')
        config.write_text(
            (root / DEBIANS).read_text() + "\n[databases]\n"
            f"* = host=127.0.0.1 port={server.port}\n"
            "[pgbouncer]\n"
            f"logfile = {folder}/log\npidfile = {folder}/pid\nunix_socket_dir = {folder}\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_file = {folder}/userlist.txt\n"
            + (f"pool_mode = {pool_mode}\n" if pool_mode else "")
        )
        account = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if not os.geteuid() else {}
        if account:
            os.chown(folder, NOBODY, NOBODY)
        process = subprocess.Popen(
            [root / PROGRAM, config],
            env=os.environ | library_path(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **account,  # type: ignore[call-overload]
        )
        try:
            eventually(lambda: answers(port), what=str(folder / "log"))
            yield f"postgresql://t:secret@127.0.0.1:{port}/{database}"
        finally:
            process.kill()
            process.wait()
