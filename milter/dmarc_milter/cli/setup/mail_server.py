"""What `setup` shows and writes for each mail server."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.checks import remedies
from dmarc_milter.cli.setup import unix_socket
from dmarc_milter.cli.setup.files import CannotSetUp, read, write, written
from dmarc_milter.config import DEFAULT_PATH, Config, ConfigError, load
from dmarc_milter.config.checks import SocketAddress, socket_address
from dmarc_milter.config.instance import Instance, instance
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.core.text import printable
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
from dmarc_milter.mta.earlier_socket import (
    Edit,
    is_same,
    marked_socket,
    postfix_edit,
    sendmail_edit,
    sendmail_still_named,
    still_named,
)
from dmarc_milter.mta.errors import PostfixError
from dmarc_milter.mta.find import find
from dmarc_milter.mta.milter_lists.attached import unreachable
from dmarc_milter.mta.milter_lists.wanted import MilterLists
from dmarc_milter.mta.other_filter_advice import advice, order
from dmarc_milter.mta.postfix_review import review

REBUILD = "now rebuild sendmail.cf and restart sendmail; on Debian: make -C /etc/mail restart"


def run(arguments: argparse.Namespace) -> None:
    """Raises CannotSetUp, AttachmentError, PostfixError, ConfigError."""
    mta = arguments.mta or ("postfix" if arguments.is_main_cf_given else find(arguments.root))
    if arguments.remove:
        _remove(arguments, mta)
        return
    config = load(arguments.config)
    (_postfix if mta == "postfix" else _sendmail)(arguments, config)


def _socket(config: Config, given: str, of: Instance) -> SocketAddress:
    """The configuration's, or the one that the MTA is to use. Raises CannotSetUp."""
    try:
        socket = socket_address(given or config.milter.socket)
    except ValueError as error:
        raise CannotSetUp(f"--socket: {error}") from None
    configured = socket_address(config.milter.socket)
    if given and configured.family != "fd" and not is_same(socket, configured):
        raise CannotSetUp(
            f"--socket {given} is not where the milter listens ({config.milter.socket}); first:"
            f" dmarc-milter config set milter.socket {given}"
        )
    if socket.family != "fd":
        return socket
    handed_over = unix_socket.of_systemd(of)
    if handed_over is None:
        raise CannotSetUp(
            "the configuration leaves the socket to systemd, and dmarc-milter.socket was not found;"
            " name it: --socket unix:/run/dmarc-milter.sock"
        )
    return handed_over


def _postfix(arguments: argparse.Namespace, config: Config) -> None:
    path, of = arguments.main_cf, instance(arguments.config)
    reload = f"postfix{f' -c {path.parent}' if arguments.is_main_cf_given else ''} reload"
    if not arguments.apply and not path.exists() and arguments.socket != "unix":
        lines = setup_lines.postfix_lines(_socket(config, arguments.socket, of))
        _print_lines("main.cf", lines, f"then: {reload}")
        return
    files = postfix.read(path)
    place = unix_socket.for_postfix(files, config, of) if arguments.socket == "unix" else None
    socket = place.socket if place else _socket(config, arguments.socket, of)
    reason = unreachable(files, socket)
    if reason:
        raise CannotSetUp(reason)
    before = read(path)
    earlier = (*unix_socket.known_sockets(config, of), *marked_socket(before, files))
    edit = postfix_edit(before, files, socket, earlier)
    if place:
        steps = unix_socket.describe(place, config, of, is_shown=not arguments.apply)
        reload = " && ".join([*steps, reload])
    _print_taken(path, edit)
    settings = postfix.parse_main(edit.after)
    if edit.is_left:
        print(
            f"{path}: smtpd_milters names this milter already, written by somebody else; left as"
            " it is"
        )
    if arguments.apply:
        _apply(arguments, config, FileChange(path, before, edit, f"now: {reload}"), place)
    elif not edit.is_left:
        lines = setup_lines.with_reasons(
            (f"smtpd_milters = {settings['smtpd_milters']}", *setup_lines.POSTFIX_STRICT), "#"
        )
        _print_lines(str(path), lines, f"then: {reload}; --apply writes them")
    after_files = replace(files, settings=settings)
    _print_findings(_about_postfix(after_files, config, socket, arguments.root), arguments)


class FileChange(NamedTuple):
    """Of the MTA's file, and what is to be done after it."""

    path: Path
    before: str
    edit: Edit
    what_next: str


def _apply(
    arguments: argparse.Namespace,
    config: Config,
    change: FileChange,
    place: unix_socket.Place | None,
) -> None:
    """The MTA's file, then the folder and the configuration; all of it or nothing."""
    path, before, edit, what_next = change
    with contextlib.ExitStack() as stack:
        if edit.after != before or not edit.is_left:
            stack.enter_context(written(path, before, edit.after, what_next))
        if place:
            stack.enter_context(unix_socket.moved(place, config, arguments.config))
    if place and edit.after == before:
        print(what_next)


def _print_taken(path: Path, edit: Edit) -> None:
    for text in edit.taken:
        print(
            f"{path}: {printable(text, 300)} goes: an entry of this milter for a socket that it"
            " leaves, or a second one"
        )


def _about_postfix(
    files: postfix.Postfix, config: Config, socket: SocketAddress, root: Path
) -> Iterable[Finding]:
    installed = other_filter_files.installed(root)
    lists = MilterLists(files, socket, installed, config.authentication)
    yield from review(files, socket, config.authentication, lists)
    yield from order(files, socket, installed, lists)
    others = other_filters.of_postfix(files, socket, installed, lists)
    yield from advice(others, installed, socket)
    yield from unix_socket.openness(socket)


def _sendmail(arguments: argparse.Namespace, config: Config) -> None:
    path: Path = arguments.sendmail_mc
    of = instance(arguments.config)
    place = unix_socket.for_sendmail(of) if arguments.socket == "unix" else None
    socket = place.socket if place else _socket(config, arguments.socket, of)
    before = read(path) if arguments.apply or path.exists() else ""
    earlier = unix_socket.known_sockets(config, of)
    cf = sendmail_cf.read(path.with_suffix(".cf")) or ""
    edit = sendmail_edit(before, socket, earlier, is_moved=place is not None, cf=cf)
    steps = (
        unix_socket.describe(place, config, of, is_shown=not arguments.apply)
        if place is not None
        else []
    )
    rebuild = "; ".join([*steps, REBUILD])
    for _, remark in sendmail_cf.remarks(cf, config.authentication.trusted_daemons):
        print(f"warning: {remark}")
    _print_taken(path, edit)
    if arguments.apply:
        _apply_sendmail(arguments, config, FileChange(path, before, edit, rebuild), place, socket)
    else:
        lines = setup_lines.with_reasons(setup_lines.sendmail_lines(socket), "dnl")
        where = "sendmail.mc, before other filters and MAILER()"
        _print_lines(where, lines, rebuild + "; --apply writes them")
        _print_rewriting(path)
    text = read(path) if path.exists() else ""
    installed = other_filter_files.installed(arguments.root)
    there = other_filters.of_sendmail(sendmail_review.of_mc(text), socket, installed, path)
    found = advice(there, installed, socket)
    _print_findings([*found, *unix_socket.openness(socket)], arguments)


def _apply_sendmail(
    arguments: argparse.Namespace,
    config: Config,
    change: FileChange,
    place: unix_socket.Place | None,
    socket: SocketAddress,
) -> None:
    path, before, edit, _ = change
    if edit.is_left:
        print(
            f"{path}: has a filter named dmarc-milter already, written by somebody else; left as"
            " it is"
        )
    _apply(arguments, config, change, place)
    _print_warnings(edit.after, socket)
    _print_rewriting(path)
    if not edit.is_left and ("InputMailFilters=" in before or "confINPUT_MAIL_FILTERS" in before):
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
    else:
        write(path, after)
        print(f"{path}: as it was before; {'now: postfix reload' if is_postfix else REBUILD}")
    _print_remaining(arguments, is_postfix=is_postfix)


def _print_remaining(arguments: argparse.Namespace, *, is_postfix: bool) -> None:
    """Who stops the milter after --remove must know of entries that others wrote."""
    try:
        sockets = unix_socket.known_sockets(load(arguments.config), instance(arguments.config))
        if is_postfix:
            found = still_named(postfix.read(arguments.main_cf), sockets)
        else:
            found = sendmail_still_named(read(arguments.sendmail_mc), sockets)
    except (ConfigError, PostfixError, CannotSetUp):
        return
    for place in found:
        print(f"warning: {printable(place, 300)}: take it out before the milter is stopped")


def _print_lines(where: str, lines: Sequence[str], what_next: str) -> None:
    print(f"lines for {where}:", *(f"  {line}" for line in lines), what_next, sep="\n")


def _print_findings(findings: Iterable[Finding], arguments: argparse.Namespace) -> None:
    config = None if arguments.config == DEFAULT_PATH else arguments.config
    main_cf = arguments.main_cf if arguments.is_main_cf_given else None
    for finding in findings:
        print(f"{finding.level}: {finding.text}")
        if finding.remedy:
            print(f"  -> {remedies.placed(finding.remedy, config=config, main_cf=main_cf)}")
