"""A private PostgreSQL: the installed programs or the unpacked ones, a cluster of its own, TCP on a
free port."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakes.daemon import free_port
from live.place import NOBODY, UNPACKED, give_up, library_path, private_folder


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, or None."""
    found = [
        *UNPACKED.glob("usr/lib/postgresql/*/bin/initdb"),
        *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
    ]
    return found[0].resolve().parent if found else None


class Postgres:
    """A cluster with the superuser `t`, no password, on 127.0.0.1. It may be stopped, killed and
    started again."""

    def __init__(
        self, folder: Path, *, standby_of: Postgres | None = None, there: bool = False
    ) -> None:
        """`there`: the cluster was made before."""
        found = programs()
        if found is None:
            give_up("run tools/setup_tests.sh (make test does) first")
            raise AssertionError
        self.folder = folder
        self.port = free_port()
        self._programs = found
        self._environment = os.environ | library_path() | {"LC_ALL": "C.UTF-8"}
        if there:
            return
        if os.geteuid() == 0:  # initdb refuses root
            os.chown(folder, NOBODY, NOBODY)
        if standby_of is not None:
            self._run(
                "pg_basebackup", "-D", f"{folder}/data", "-d", standby_of.url, "-R", "-X", "stream",
                "-c", "fast", "--no-sync",
            )  # fmt: skip
            return
        self._run(
            "initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "t", "--no-sync", "-E", "UTF8"
        )

    @property
    def url(self) -> str:
        return f"postgresql://t@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        account = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            run = subprocess.run(
                [self._programs / program, *arguments],
                check=False,
                env=self._environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **account,  # type: ignore[call-overload]
            )
        if run.returncode:
            raise AssertionError(f"{program}: {Path(log.name).read_text()}")

    def start(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off -c"
            " max_connections=200"
        )
        self._run(
            "pg_ctl",
            "-D",
            f"{self.folder}/data",
            "-w",
            "-o",
            options,
            "-l",
            f"{self.folder}/log",
            "start",
        )

    def promote(self) -> None:
        """A standby becomes a server that can be written."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "promote")

    def processes(self) -> list[int]:
        """The server's process and those that it has made."""
        first = int((self.folder / "data/postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def stop(self, mode: str = "fast") -> None:
        """Modes are pg_ctl's: smart, fast, immediate (as after a crash)."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "stop")


@contextmanager
def private_postgres(*, parent: str = "/tmp") -> Iterator[Postgres]:
    """A PostgreSQL that runs as long as the block."""
    with private_folder("postgres", parent=parent) as outer:
        folder = outer / "pg"
        folder.mkdir(mode=0o755)
        postgres = Postgres(folder)
        postgres.start()
        try:
            yield postgres
        finally:
            if (folder / "data/postmaster.pid").exists():
                postgres.stop("immediate")
