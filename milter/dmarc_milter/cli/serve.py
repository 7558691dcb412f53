"""`dmarc-milter serve`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.cli.main import add_config, load_command, main
from dmarc_milter.config import ConfigError, root_files
from dmarc_milter.process import pid_one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--pid-file",
        type=Path,
        metavar="FILE",
        help="hold the process id there while the daemon runs",
    )
    parser.add_argument(
        "--no-jobs",
        action="store_true",
        help="leave draining the spool and sending reports to timers",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs until SIGTERM; the exit code is the supervisor's."""
    code = pid_one.stay_behind()
    if code is not None:
        return code
    with _held_back(), _noted(arguments.pid_file):
        from dmarc_milter.daemon.startup import serve
        from dmarc_milter.daemon.wiring import Commands

        return serve(arguments.config, None if arguments.no_jobs else Commands(main, load_command))


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """A reload or the end that is asked for during the start waits until the supervisor takes
    signals; they would kill us before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _noted(path: Path | None) -> Iterator[None]:
    """The file is there as long as the daemon. Raises ConfigError where it cannot be written, or
    another daemon has it.

    Root opens it before it becomes the daemon's account, which may own the directory: so never
    through a link.
    """
    if path is None:
        yield
        return
    try:
        file = os.fdopen(root_files.make(path), "r+", encoding="ascii")
        fcntl.lockf(
            file, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # this process's alone: it ends with it, whatever its workers do
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
    except BlockingIOError:
        raise ConfigError(f"--pid-file {path}: another daemon has it") from None
    except OSError as error:
        raise ConfigError(f"--pid-file {path}: cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.truncate(0)  # where it has to stay, nobody ends another process by it
            if os.path.samestat(os.lstat(path), os.fstat(file.fileno())):
                path.unlink()  # the daemon's account may not be allowed to
        file.close()
