"""What `setup` shows and writes for each mail server."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dmarc_milter.cli.setup import unix_socket
from dmarc_milter.cli.setup.files import CannotSetUp, apply, read, write
from dmarc_milter.config import Config, load
from dmarc_milter.config.checks import SocketAddress, socket_address
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.mta import (
    other_filter_files,
    other_filters,
    postfix,
    sendmail_cf,
    sendmail_review,
    sendmail_rewriting,
    setup_edits,
    setup_lines,
)
from dmarc_milter.mta.find import find
from dmarc_milter.mta.other_filter_advice import advice, order
from dmarc_milter.mta.postfix_review import is_ours, review, unreachable

REBUILD = "now rebuild sendmail.cf and restart sendmail; on Debian: make -C /etc/mail restart"


def run(arguments: argparse.Namespace) -> None:
    """Raises CannotSetUp, AttachmentError, PostfixError, ConfigError."""
    mta = arguments.mta or ("postfix" if arguments.is_main_cf_given else find(arguments.root))
    if arguments.remove:
        _remove(arguments, mta)
        return
    config = load(arguments.config)
    (_postfix if mta == "postfix" else _sendmail)(arguments, config)


def _socket(config: Config, given: str) -> SocketAddress:
    """The configuration's, or the one that the MTA is to use. Raises CannotSetUp."""
    try:
        socket = socket_address(given or config.milter.socket)
    except ValueError as error:
        raise CannotSetUp(f"--socket: {error}") from None
    if socket.family != "fd":
        return socket
    handed_over = unix_socket.of_systemd()
    if handed_over is None:
        raise CannotSetUp(
            "the configuration leaves the socket to systemd, and dmarc-milter.socket was not found;"
            " name it: --socket unix:/run/dmarc-milter.sock"
        )
    return handed_over


def _postfix(arguments: argparse.Namespace, config: Config) -> None:
    path = arguments.main_cf
    reload = f"postfix{f' -c {path.parent}' if arguments.is_main_cf_given else ''} reload"
    if not arguments.apply and not path.exists() and arguments.socket != "unix":
        lines = setup_lines.postfix_lines(_socket(config, arguments.socket))
        _print_lines("main.cf", lines, f"then: {reload}")
        return
    files = postfix.read(path)
    if arguments.socket == "unix":
        place = unix_socket.for_postfix(files, config)
        steps = unix_socket.prepare(place, config, arguments)
        socket, reload = place.socket, " && ".join([*steps, reload])
    else:
        socket = _socket(config, arguments.socket)
    reason = unreachable(files, socket)
    if reason:
        raise CannotSetUp(reason)
    before = read(path)
    if not setup_edits.is_attached(before, "#") and any(
        is_ours(milter, files, socket, chrooted=False) for milter in files.milters()
    ):
        print(
            f"{path}: smtpd_milters names this milter already, written by somebody else; left as"
            " it is"
        )
        _print_findings(_about_postfix(files, config, socket, arguments.root))
        return
    element = setup_lines.postfix_milter(_below_queue(files, socket))
    after = setup_edits.attach_postfix(before, element, setup_lines.POSTFIX_STRICT)
    settings = postfix.parse_main(after)
    if arguments.apply:
        apply(path, before, after, f"now: {reload}")
    else:
        lines = setup_lines.with_reasons(
            (f"smtpd_milters = {settings['smtpd_milters']}", *setup_lines.POSTFIX_STRICT), "#"
        )
        _print_lines(str(path), lines, f"then: {reload}; --apply writes them")
    after_files = replace(files, settings=settings)
    _print_findings(_about_postfix(after_files, config, socket, arguments.root))


def _about_postfix(
    files: postfix.Postfix, config: Config, socket: SocketAddress, root: Path
) -> Iterable[Finding]:
    installed = other_filter_files.installed(root)
    yield from review(files, socket, config.authentication)
    yield from order(files, socket, installed)
    yield from advice(other_filters.of_postfix(files, socket, installed), installed, socket)
    yield from unix_socket.openness(socket)


def _below_queue(files: postfix.Postfix, socket: SocketAddress) -> SocketAddress:
    """A path below the queue directory is given relative to it, which is right with chroot and
    without."""
    if socket.family == "unix":
        with contextlib.suppress(ValueError):
            return replace(socket, path=str(Path(socket.path).relative_to(files.queue_directory)))
    return socket


def _sendmail(arguments: argparse.Namespace, config: Config) -> None:
    path: Path = arguments.sendmail_mc
    rebuild = REBUILD
    if arguments.socket == "unix":
        place = unix_socket.for_sendmail()
        socket = place.socket
        rebuild = "; ".join([*unix_socket.prepare(place, config, arguments), REBUILD])
    else:
        socket = _socket(config, arguments.socket)
    cf = sendmail_cf.read(path.with_suffix(".cf")) or ""
    for remark in sendmail_cf.remarks(cf, config.authentication.trusted_daemons):
        print(f"warning: {remark}")
    lines = setup_lines.with_reasons(setup_lines.sendmail_lines(socket), "dnl")
    if arguments.apply:
        _apply_sendmail(path, lines, socket, rebuild)
    else:
        where = "sendmail.mc, before other filters and MAILER()"
        _print_lines(where, lines, rebuild + "; --apply writes them")
        _print_rewriting(path)
    text = read(path) if path.exists() else ""
    installed = other_filter_files.installed(arguments.root)
    found = advice(other_filters.of_sendmail(text, socket, installed), installed, socket)
    _print_findings([*found, *unix_socket.openness(socket)])


def _apply_sendmail(
    path: Path, lines: Sequence[str], socket: SocketAddress, what_next: str
) -> None:
    before = read(path)
    if not setup_edits.is_attached(before, "dnl") and sendmail_review.has_filter(before):
        print(
            f"{path}: has a filter named dmarc-milter already, written by somebody else; left as"
            " it is"
        )
        _print_warnings(before, socket)
        _print_rewriting(path)
        return
    after = setup_edits.attach_sendmail(before, lines)
    apply(path, before, after, what_next)
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


def _remove(arguments: argparse.Namespace, mta: str) -> None:
    is_postfix = mta == "postfix"
    path = arguments.main_cf if is_postfix else arguments.sendmail_mc
    before = read(path)
    after = (
        setup_edits.detach_postfix(before) if is_postfix else setup_edits.detach_sendmail(before)
    )
    if after == before:
        print(f"{path}: setup has not written anything there")
        return
    write(path, after)
    print(f"{path}: as it was before; {'now: postfix reload' if is_postfix else REBUILD}")


def _print_lines(where: str, lines: Sequence[str], what_next: str) -> None:
    print(f"lines for {where}:", *(f"  {line}" for line in lines), what_next, sep="\n")


def _print_findings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        print(f"{finding.level}: {finding.text}")
        if finding.remedy:
            print(f"  -> {finding.remedy}")
