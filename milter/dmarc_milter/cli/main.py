"""The command line: `dmarc-milter COMMAND`. Exit codes: 0 fine, 1 the answer is "no", 2 usage or
configuration, 75 try later."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TextIO

from dmarc_milter import __version__
from dmarc_milter.cli.interrupts import INTERRUPTED, raise_again
from dmarc_milter.config import DEFAULT_PATH, Config, ConfigError, load, load_without_file
from dmarc_milter.config.load import CONFIG_VARIABLE
from dmarc_milter.config.sources import CONF_D, files_of_conf_d
from dmarc_milter.core.stored import UnreadableFacts
from dmarc_milter.process import pid_one

EXIT_OK, EXIT_NO, EXIT_USAGE, EXIT_TEMPFAIL = 0, 1, 2, 75
"""EXIT_TEMPFAIL is EX_TEMPFAIL of sysexits.h: try again later."""
SELDOM = 20_000
"""New objects between two collections: a command imports on while it runs, and ends soon."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing to an output meets that takes nothing."""

COMMANDS = {
    "serve": "run the milter in the foreground",
    "check": "evaluate a message file and explain every step",
    "why": "explain a decision already taken",
    "allow": "let in the sender of a message that policy stopped, by something that it proved",
    "doctor": "everything that can be wrong with this installation, and how to mend it",
    "ready": "ask the running daemon whether it serves: the health check of containers",
    "domain": "what a domain publishes and what is wrong with it",
    "impact": "what enforcement did, or would do, by domain and source",
    "rules": "try the local rules on mail that was judged already",
    "report": (
        "list, preview, send, show, resend, drop reports; take bounces; allow an address again"
    ),
    "stats": "totals",
    "summary": "a day or a week for the postmaster, printed or mailed",
    "config": "check, show, or print a sample of the configuration",
    "store": "upgrade or expire the store, drain the spool into it, show the state of both",
    "web": "read-only dashboard",
    "setup": "print, apply or remove the MTA's lines",
    "import": "translate an opendmarc.conf",
}
"""Each is a module of this package (`import` is `import_`) with add_arguments(parser) and
run(arguments) -> exit code."""


EXAMPLES = {
    "serve": ("serve --config /etc/dmarc-milter/dmarc-milter.toml",),
    "check": (
        "check message.eml",
        "check message.eml --ip 192.0.2.1 --helo mail.example.com --mail-from a@example.com",
        "check --from ~/Maildir",
    ),
    "why": ("why 4Qabcd1234", "why --since 2h --disposition reject", "why --domain example.com"),
    "doctor": ("doctor", "doctor --json"),
    "ready": ("ready",),
    "allow": ("allow 4Qabcd1234", "allow 4Qabcd1234 --for 30d --apply"),
    "domain": ("domain example.com", "domain example.com --json"),
    "impact": ("impact", "impact --days 7 --domain example.com"),
    "rules": ("rules test", "rules test --file new-rules.toml"),
    "report": ("report list --since 7d", "report show report.xml.gz", "report send"),
    "stats": ("stats", "stats --html"),
    "summary": ("summary", "summary --send --days 7"),
    "config": ("config check", "config set policy.enforce true", "config show"),
    "store": ("store status", "store upgrade"),
    "web": ("web",),
    "setup": ("setup --mta postfix", "setup --mta postfix --apply"),
    "import": ("import /etc/opendmarc.conf --output /etc/dmarc-milter/dmarc-milter.toml",),
}
"""What people type most, shown by --help."""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Never a traceback for what the user or the world did, nor for an output
    that takes nothing."""
    _open_streams()
    code = EXIT_OK
    try:
        try:
            code = _command(argv)
        finally:
            sys.stdout.flush()  # argparse ends by SystemExit
    except BrokenPipeError:
        _silence(sys.stdout)  # whoever reads has seen enough
    except OSError as error:
        if error.errno not in FULL:
            raise
        _silence(sys.stdout)
        with contextlib.suppress(OSError):
            print(
                f"dmarc-milter: the output cannot be written: {error.strerror}",
                file=sys.stderr,
                flush=True,
            )
        _silence(sys.stderr)
        code = EXIT_TEMPFAIL
    return code


def _open_streams() -> None:
    """A stream that was closed for us (`>&-`) is a sink; a letter that the locale lacks, or no text
    at all, is shown escaped."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _silence(stream: TextIO) -> None:
    """What it still holds goes nowhere where it cannot be written, so that the interpreter's end
    does not try again."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, stream.fileno())
            os.close(sink)


def _command(argv: Sequence[str] | None) -> int:
    """Parse and run; the exit code. Raises SystemExit for a usage error, and what the streams
    raise."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parsed = _parser(arguments).parse_args(arguments)
    if not gc.isenabled():  # since __main__
        if parsed.command != "serve":
            gc.set_threshold(SELDOM)
        gc.enable()
    try:
        raise_again()
        code = None if parsed.command == "serve" else pid_one.obey_signals()
        return int(parsed.run(parsed)) if code is None else code
    except ConfigError as error:
        for problem in error.problems:
            _complain(problem)
        return EXIT_USAGE
    except UnreadableFacts as error:
        _complain(f"the store holds decisions of a newer program ({error}): upgrade this one")
        return EXIT_NO
    except KeyboardInterrupt:
        return INTERRUPTED


def _complain(text: str) -> None:
    """On standard error, or in the log of a daemon that has opened it."""
    from dmarc_milter.telemetry.log import complain

    complain(text)


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    """Every command with its sentence; only the one that is wanted is imported."""
    parser = argparse.ArgumentParser(
        prog="dmarc-milter",
        description="Verify, enforce and report DMARC for inbound mail.",
        allow_abbrev=False,  # _command_word must know what `--config` is
    )
    parser.add_argument("--version", action="version", version=f"dmarc-milter {__version__}")
    add_config(parser, default_config())
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog=parser.prog
    )
    wanted = _command_word(arguments)
    # The others are shown by our own --help only, and by mistakes about the command's name.
    alone = wanted in COMMANDS and arguments[0] == wanted and module_of(wanted) is not None
    for name in (wanted,) if alone else COMMANDS:
        if not alone and module_of(name) is None:
            continue
        command = subparsers.add_parser(
            name,
            help=COMMANDS[name],
            description=COMMANDS[name][0].upper() + COMMANDS[name][1:] + ".",
            epilog=examples_text(EXAMPLES[name]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == wanted:
            loaded = load_command(name)
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.run)
    return parser


def examples_text(examples: Sequence[str]) -> str:
    """Below the options of `--help`."""
    return "examples:" + "".join(f"\n  dmarc-milter {example}" for example in examples)


def _command_word(arguments: list[str]) -> str:
    """The first word that is neither an option nor the value of `--config`."""
    words = iter(arguments)
    for word in words:
        if word == "--config":
            next(words, "")
        elif not word.startswith("-"):
            return word
    return ""


def module_of(command: str) -> str | None:
    """The module of a command; None when this installation comes without it."""
    name = f"dmarc_milter.cli.{'import_' if command == 'import' else command}"
    return name if importlib.util.find_spec(name) else None


def load_command(command: str) -> ModuleType:
    """Import a command's module. Raises ImportError."""
    return importlib.import_module(module_of(command) or command)


def default_config() -> Path:
    """The file that is read where none is named."""
    return Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_PATH)


def add_config(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    """`--config FILE`, as every command takes it, before the command's name or after it."""
    parser.add_argument(
        "--config",
        type=Path,
        default=argparse.SUPPRESS if default is None else default,
        metavar="FILE",
        help=f"configuration (default ${CONFIG_VARIABLE}, or {DEFAULT_PATH})",
    )


def load_or_defaults(path: Path) -> Config:
    """The configuration; the defaults where none was named and none is installed, or where this
    account may not read it, which is said. Raises ConfigError."""
    try:
        path.open("rb").close()
        with contextlib.suppress(FileNotFoundError):
            os.scandir(path.parent / CONF_D).close()
        for file in files_of_conf_d(path):
            file.open("rb").close()
    except FileNotFoundError:
        if path == DEFAULT_PATH:
            return load_without_file()
    except PermissionError as error:
        _complain(f"{error.filename}: this account may not read it: the defaults are used")
        return load_without_file()
    except OSError:
        pass  # load says what it is
    return load(path)
