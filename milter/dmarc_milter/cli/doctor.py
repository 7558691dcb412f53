"""`dmarc-milter doctor`: what is wrong with this installation, and how to mend each thing."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.checks import account, folders, host, remedies, service
from dmarc_milter.checks.configuration import NOT_RUNNING
from dmarc_milter.checks.host import MAIN_CF
from dmarc_milter.checks.installation import findings
from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, add_config
from dmarc_milter.cli.terminal import console, print_json, styled
from dmarc_milter.config import DEFAULT_PATH, Config, ConfigError, load
from dmarc_milter.config.checks import host_and_port
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.instance import instance
from dmarc_milter.config.secrets import smtp_password
from dmarc_milter.config.sources import merge, read_sources
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.mta.errors import AttachmentError
from dmarc_milter.mta.find import EXIM, find, present
from dmarc_milter.reporting.smtp import SUBMISSIONS, Submission, greeting

RULE = re.compile(r"rule (\d+) ")
RIGHTS = re.compile(r": (ch(?:mod|own|grp) [a-z0-9+-]+) (/.+)")
"""A command in an error of the configuration, and the path with what follows it."""
AT_LINE = re.compile(r"at line (\d+)")
"""Of the TOML reader."""
NOT_LOOKED_AT = f"{MAIN_CF} may be another instance's: name this one's by --postfix MAIN.CF"
WORDS = {"ok": "ok", "note": "ok", "warning": "warn", "unknown": "warn", "error": "fail"}
NO_MAIL_SERVER = (
    "neither Postfix nor Sendmail was found on this host: whether one elsewhere asks this milter is"
    " not seen here"
)
WHICH_SERVER = "shows its certificate: the password goes only to the name that stands in it"
HOW_FAR = "shows how far one gets: its name, its address, a firewall, its answer"
HERE = ("localhost", "127.0.0.1", "::1")
SECONDS = 10.0
"""For a step of the conversation with the SMTP server."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--postfix",
        type=Path,
        metavar="MAIN.CF",
        help=f"the Postfix to look at (default {MAIN_CF}, for the default configuration only)",
    )
    parser.add_argument(
        "--sendmail", type=Path, metavar="SENDMAIL.CF", help="instead of the configured one"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """0 when nothing fails, else 1. With a configuration that cannot be used nothing else is looked
    at."""
    diagnosis = list(_diagnosis(arguments))
    is_asked = any(one.level == "ok" and one.where in ("postfix", "sendmail") for one in diagnosis)
    if is_asked:
        diagnosis = [_if_asked(one, arguments.config) for one in diagnosis]
    found = [_with_remedy(one, arguments) for one in diagnosis]
    if arguments.json:
        names = ("level", "what", "text", "remedy")
        print_json({"findings": [dict(zip(names, one, strict=True)) for one in found]})
    else:
        _print(found)
    return EXIT_NO if any(one.level == "error" for one in found) else EXIT_OK


def _diagnosis(arguments: argparse.Namespace) -> Iterator[Finding]:
    try:
        config = load(arguments.config)
        yield Finding("ok", "configuration", str(arguments.config))
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("error", "configuration", problem, _editor(arguments.config, problem))
        return
    here = instance(arguments.config)
    postfix = arguments.postfix
    if postfix is None and MAIN_CF.exists():
        if here.is_default:
            postfix = MAIN_CF
        else:
            yield Finding("note", "postfix", NOT_LOOKED_AT)
    yield from findings(config, postfix=postfix, sendmail=arguments.sendmail, of=here)
    yield from account.rights(config, arguments.config)
    yield from host.unit(config, of=here)
    yield from _report_path(config)
    yield from host.clock(time.time(), host.installed_at())
    yield host.versions()
    sendmail_cf = arguments.sendmail or Path(config.authentication.sendmail_cf)
    if not (arguments.postfix or sendmail_cf.exists()):
        yield from _no_mail_server(Path("/"))


def _if_asked(one: Finding, config: Path) -> Finding:
    """Nobody at the socket is no fault by itself; where the mail server asks there, mail waits."""
    if one.where != "socket" or not one.text.endswith(NOT_RUNNING):
        return one
    text = f"{one.text}, and mail waits at its senders (451)"
    return Finding("error", "socket", text, service.start(instance(config)))


def _with_remedy(one: Finding, arguments: argparse.Namespace) -> Finding:
    """As it must be typed here; where there is none, the editor at the file it is about."""
    if one.level in ("ok", "note"):
        return one
    remedy = one.remedy
    if rule := RULE.match(one.text):
        remedy = _editor_at_rule(arguments.config, int(rule[1]))
    elif not remedy:
        file = arguments.postfix or MAIN_CF if one.where == "postfix" else arguments.config
        remedy = f"{service.editor()} {shlex.quote(str(file))}"
    config = None if arguments.config == DEFAULT_PATH else arguments.config
    main_cf = None if arguments.postfix in (None, MAIN_CF) else arguments.postfix
    placed = remedies.placed(remedy, config=config, main_cf=main_cf)
    return one._replace(remedy=placed, text=_without(one.text, remedy))


def _without(text: str, remedy: str) -> str:
    """Words of what helps, or of a command's comment, need not stand twice."""
    return text.removesuffix(f": {remedy.rpartition('  # ')[2]}")


def _editor(path: Path, problem: str) -> str:
    """Opens the file where the mistake stands; or the command that the problem names."""
    if not folders.is_missing(path) and not os.access(path, os.R_OK, effective_ids=True):
        return "sudo dmarc-milter doctor"
    if folders.is_missing(path):
        quoted = shlex.quote(str(path))
        folder = shlex.quote(str(path.parent))
        return f"mkdir -p {folder} && dmarc-milter config sample > {quoted}"
    if named := _rights(problem):
        return named
    file, _, rest = problem.partition(":")
    line = rest.partition(":")[0]
    if not line.isdecimal() and (found := AT_LINE.search(problem)):
        line = found[1]
    at = f"+{line} " if line.isdecimal() else ""
    return f"{service.editor()} {at}{shlex.quote(file if os.path.exists(file) else str(path))}"


def _rights(problem: str) -> str:
    """The command that the problem names, with its path whole; "" where no such file is there."""
    found = RIGHTS.search(problem)
    if found is None:
        return ""
    ends = [*(one.start() for one in re.finditer(r", |; | \(|$", found[2]))][::-1]
    paths = (found[2][:end] for end in ends)
    path = next(filter(os.path.exists, paths), "")
    return f"{found[1]} {shlex.quote(path)}" if path else ""


def _editor_at_rule(path: Path, number: int) -> str:
    """Where a rule stands, counted from 1 over all files."""
    merged = merge(read_sources(path, os.environ))
    origin, local = merged.origins.get(
        ("policy", "rules", str(number - 1)), merged.origins["policy", "rules"]
    )
    if len(local) == 2:  # the first list of rules, which is held whole
        local = (*local, str(number - 1))
    line = origin.line(local)
    return f"{service.editor()} +{line} {shlex.quote(origin.name)}"


def _report_path(config: Config) -> Iterator[Finding]:
    """Whether the server that takes report mail lets us in."""
    options = config.reporting
    if not options.is_on:
        return
    where, port = host_and_port(options.smtp, 25)
    try:
        password = smtp_password(config)
    except ConfigError:  # said already
        return
    problem = greeting(
        Submission(where, port, options.smtp_tls, options.smtp_user, password, timeout=SECONDS)
    )
    if problem:
        yield Finding(
            "error",
            "report path",
            f"{options.smtp} takes no report mail: {problem}",
            _way_in(config, where, port, problem),
        )
    elif options.smtp_user and options.smtp_tls == "none" and where not in HERE:
        yield Finding(
            "warning",
            "report path",
            f'{options.smtp} lets us in, and smtp_tls = "none" sends it the password in the clear',
            set_command("reporting.smtp_tls", "verify"),
        )
    else:
        yield Finding("ok", "report path", f"{options.smtp} lets us in")


def _way_in(config: Config, host_name: str, port: int, problem: str) -> str:
    """By what the server said. A password is never sent with less protection than was asked for,
    unless it stays on this host: who stands between could have made the server's certificate."""
    options, lower, here = config.reporting, problem.lower(), host_name in HERE
    if options.smtp_user and not here:
        return _way_in_with_login(config, host_name, port, problem)
    if port == SUBMISSIONS and options.smtp_tls == "none" and "refused" not in lower:
        return set_command("reporting.smtp_tls", "opportunistic" if here else "verify")
    if "starttls" in lower or "certificate" in lower:
        is_offered = options.smtp_user and "certificate" in lower
        way = "opportunistic" if is_offered or not here else "none"
        return set_command("reporting.smtp_tls", way)
    if re.search(r": 53\d ", problem) and options.smtp_password_file:
        return f"{service.editor()} {shlex.quote(options.smtp_password_file)}"
    if here and "refused" in lower and (mta := _mail_server()):
        return f"systemctl start {mta}"
    if here:
        return set_command("reporting.smtp", "localhost:25")
    return _look_at(host_name, port, HOW_FAR)  # whoever named a smarthost wants mail to go there


def _way_in_with_login(config: Config, host_name: str, port: int, problem: str) -> str:
    """At a smarthost."""
    options = config.reporting
    if options.smtp_tls == "none":
        return set_command("reporting.smtp_tls", "verify")
    if re.search(r": 53\d ", problem) and options.smtp_password_file:
        return f"{service.editor()} {shlex.quote(options.smtp_password_file)}"
    return _look_at(host_name, port, WHICH_SERVER)


def _look_at(host_name: str, port: int, what: str) -> str:
    """The command that shows how a server answers, and what to look for."""
    where = shlex.quote(f"{host_name}:{port}")
    start = "" if port == SUBMISSIONS else "-starttls smtp "
    return f"openssl s_client {start}-connect {where} < /dev/null  # {what}"


def _mail_server() -> str:
    """The one that is installed, or ""."""
    try:
        return find(Path("/"))
    except AttachmentError:
        return ""


def _no_mail_server(root: Path) -> Iterator[Finding]:
    """Silence would look like a mail server with which all is well."""
    servers = present(root)
    if not servers:
        yield Finding("note", "mail server", NO_MAIL_SERVER)
    elif servers == ["exim"]:
        yield Finding("note", "mail server", EXIM)


def _print(found: list[Finding]) -> None:
    screen = console()
    for one in found:
        word = styled(WORDS[one.level])
        word.pad_right(6 - len(word.plain))
        screen.print(word, f"{one.where}: {one.text}", soft_wrap=True)
        if one.remedy and one.level not in ("ok", "note"):
            screen.print(f"       -> {one.remedy}", soft_wrap=True, markup=False, highlight=False)
    bad = sum(WORDS[one.level] == "fail" for one in found)
    doubtful = sum(WORDS[one.level] == "warn" for one in found)
    print(f"\n{bad} to mend, {doubtful} to look at, {len(found) - bad - doubtful} well.")
