"""`dmarc-milter setup --mta postfix|sendmail [--apply | --remove]`."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, add_config
from dmarc_milter.config import Config, load
from dmarc_milter.config.checks import SocketAddress, socket_address
from dmarc_milter.mta import (
    postfix,
    sendmail_cf,
    sendmail_review,
    sendmail_rewriting,
    setup_edits,
    setup_lines,
)
from dmarc_milter.mta.errors import AttachmentError, PostfixError
from dmarc_milter.mta.postfix_review import is_ours, review, unreachable

MAIN_CF, SENDMAIL_MC = Path("/etc/postfix/main.cf"), Path("/etc/mail/sendmail.mc")
BACKUP = ".before-dmarc-milter"
REBUILD = "now rebuild sendmail.cf and restart sendmail; on Debian: make -C /etc/mail restart"


class CannotSetUp(Exception):
    """`str()` is one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--mta", required=True, choices=("postfix", "sendmail"), help="the mail server to attach"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--apply",
        action="store_true",
        help=f"write the lines; the file as it was is kept beside it as *{BACKUP}",
    )
    what.add_argument("--remove", action="store_true", help="take out what --apply wrote")
    parser.add_argument(
        "--socket",
        default="",
        help="the MTA's way to the milter, if the configuration says fd:3",
    )
    parser.add_argument(
        "--main-cf",
        type=Path,
        metavar="FILE",
        help=f"Postfix's main.cf; master.cf is read from the same folder (default {MAIN_CF})",
    )
    parser.add_argument(
        "--sendmail-mc",
        type=Path,
        default=SENDMAIL_MC,
        metavar="FILE",
        help=f"Sendmail's sendmail.mc (default {SENDMAIL_MC})",
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.remove:
            return _remove(arguments)
        config = load(arguments.config)
        socket = _socket(config, arguments.socket)
        return (
            _postfix(arguments, config, socket)
            if arguments.mta == "postfix"
            else _sendmail(arguments, config, socket)
        )
    except (CannotSetUp, AttachmentError, PostfixError) as error:
        print(f"dmarc-milter: {error}", file=sys.stderr)
        return EXIT_NO


def _socket(config: Config, given: str) -> SocketAddress:
    """The configuration's, or the one that the MTA is to use. Raises CannotSetUp."""
    try:
        socket = socket_address(given or config.milter.socket)
    except ValueError as error:
        raise CannotSetUp(f"--socket: {error}") from None
    if socket.family == "fd":
        raise CannotSetUp(
            "the configuration leaves the socket to systemd; name it: --socket"
            " unix:/run/dmarc-milter.sock"
        )
    return socket


def _main_cf(arguments: argparse.Namespace) -> Path:
    return arguments.main_cf or MAIN_CF


def _postfix(arguments: argparse.Namespace, config: Config, socket: SocketAddress) -> int:
    path = _main_cf(arguments)
    if not arguments.apply and not path.exists():
        lines = (setup_lines.postfix_main_cf(socket), *setup_lines.POSTFIX_STRICT)
        _print_lines("main.cf", lines, "then: postfix reload")
        return EXIT_OK
    files = postfix.read(path)
    reason = unreachable(files, socket)
    if reason:
        raise CannotSetUp(reason)
    before = _read(path)
    if not setup_edits.is_attached(before, "#") and any(
        is_ours(milter, files, socket, chrooted=False) for milter in files.milters()
    ):
        print(
            f"{path}: smtpd_milters names this milter already, written by somebody else; left as"
            " it is"
        )
        _print_findings(files, config, socket)
        return EXIT_OK
    element = setup_lines.postfix_milter(_below_queue(files, socket))
    after = setup_edits.attach_postfix(before, element, setup_lines.POSTFIX_STRICT)
    settings = postfix.parse_main(after)
    if arguments.apply:
        where = f" -c {path.parent}" if arguments.main_cf else ""
        _apply(path, before, after, f"now: postfix{where} reload")
    else:
        lines = (f"smtpd_milters = {settings['smtpd_milters']}", *setup_lines.POSTFIX_STRICT)
        _print_lines(str(path), lines, "then: postfix reload; --apply writes them")
    _print_findings(replace(files, settings=settings), config, socket)
    return EXIT_OK


def _below_queue(files: postfix.Postfix, socket: SocketAddress) -> SocketAddress:
    """A path below the queue directory is given relative to it, which is right with chroot and
    without."""
    if socket.family == "unix":
        with contextlib.suppress(ValueError):
            return replace(socket, path=str(Path(socket.path).relative_to(files.queue_directory)))
    return socket


def _sendmail(arguments: argparse.Namespace, config: Config, socket: SocketAddress) -> int:
    path = arguments.sendmail_mc
    cf = sendmail_cf.read(path.with_suffix(".cf")) or ""
    for remark in sendmail_cf.remarks(cf, config.authentication.trusted_daemons):
        print(f"warning: {remark}")
    lines = setup_lines.sendmail_lines(socket)
    if arguments.apply:
        _apply_sendmail(path, lines, socket)
    else:
        where = "sendmail.mc, before other filters and MAILER()"
        _print_lines(where, lines, REBUILD + "; --apply writes them")
        _print_rewriting(path)
    return EXIT_OK


def _apply_sendmail(path: Path, lines: tuple[str, ...], socket: SocketAddress) -> None:
    before = _read(path)
    if not setup_edits.is_attached(before, "dnl") and sendmail_review.has_filter(before):
        print(
            f"{path}: has a filter named dmarc-milter already, written by somebody else; left as"
            " it is"
        )
        _print_warnings(before, socket)
        _print_rewriting(path)
        return
    after = setup_edits.attach_sendmail(before, lines)
    _apply(path, before, after, REBUILD)
    _print_warnings(after, socket)
    _print_rewriting(path)
    if "InputMailFilters=" in before or "confINPUT_MAIL_FILTERS" in before:
        print(
            "warning: InputMailFilters= or confINPUT_MAIL_FILTERS there lists the filters: add"
            " dmarc-milter as the first of them"
        )


def _print_warnings(text: str, socket: SocketAddress) -> None:
    for warning in sendmail_review.warnings(text, socket):
        print(f"warning: {warning}")
    for warning in sendmail_review.looks_names_up(text):
        print(f"WARNING: {warning}")


def _print_rewriting(sendmail_mc: Path) -> None:
    """What the sendmail.cf in force, beside the .mc, does to From."""
    path = sendmail_mc.with_name("sendmail.cf")
    found = sendmail_rewriting.read(path)
    for finding in sendmail_rewriting.findings(found, str(path)) if found is not None else ():
        word = "WARNING" if finding.level == "error" else finding.level
        print(f"{word}: {finding.text}")


def _remove(arguments: argparse.Namespace) -> int:
    is_postfix = arguments.mta == "postfix"
    path = _main_cf(arguments) if is_postfix else arguments.sendmail_mc
    before = _read(path)
    after = (
        setup_edits.detach_postfix(before) if is_postfix else setup_edits.detach_sendmail(before)
    )
    if after == before:
        print(f"{path}: setup has not written anything there")
        return EXIT_OK
    _write(path, after)
    print(f"{path}: as it was before; {'now: postfix reload' if is_postfix else REBUILD}")
    return EXIT_OK


def _apply(path: Path, before: str, after: str, what_next: str) -> None:
    if after == before:
        print(f"{path}: the lines are already there")
        return
    kept = path.with_name(path.name + BACKUP)
    if not (
        kept.exists() and any(setup_edits.is_attached(before, comment) for comment in ("#", "dnl"))
    ):
        try:
            shutil.copy2(path, kept)
        except OSError as error:
            raise CannotSetUp(f"{kept}: cannot be written: {error.strerror}") from None
    _write(path, after)
    print(f"{path}: written; the file without the lines is {kept}\n{what_next}")


def _print_lines(where: str, lines: tuple[str, ...], what_next: str) -> None:
    print(f"lines for {where}:", *(f"  {line}" for line in lines), what_next, sep="\n")


def _print_findings(files: postfix.Postfix, config: Config, socket: SocketAddress) -> None:
    for finding in review(files, socket, config.authentication):
        print(f"{finding.level}: {finding.text}")


def _read(path: Path) -> str:
    """The text with its own line ends, undecodable bytes kept. Raises CannotSetUp."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise CannotSetUp(f"{path}: cannot be read: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    """In one step, with the owner and mode that the file has; a link is followed. Raises
    CannotSetUp."""
    target = Path(os.path.realpath(path))
    try:
        held = target.stat()
        number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                os.fchmod(file.fileno(), held.st_mode & 0o7777)
                os.fchown(file.fileno(), held.st_uid, held.st_gid)
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise CannotSetUp(f"{path}: cannot be written: {error.strerror}") from None
