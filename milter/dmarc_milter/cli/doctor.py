"""`dmarc-milter doctor`: what is wrong with this installation, and how to mend each thing."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.checks import account, host
from dmarc_milter.checks.installation import findings
from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, add_config
from dmarc_milter.cli.terminal import console, print_json, styled
from dmarc_milter.config import Config, ConfigError, load
from dmarc_milter.config.checks import host_and_port
from dmarc_milter.config.secrets import smtp_password
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.reporting.smtp import Submission, greeting

MAIN_CF = Path("/etc/postfix/main.cf")
ELSEWHERE = {
    "postfix": "dmarc-milter setup --mta postfix (it prints the lines that belong there)",
    "sendmail": "dmarc-milter setup --mta sendmail (it prints the lines that belong there)",
    "rewriting": "see docs/how-to/sendmail.md",
    "reports": "dmarc-milter domain DOMAIN (it shows all that the domain publishes)",
    "spool": "dmarc-milter store status",
    "store": "dmarc-milter store status",
}
"""Where a finding names no remedy of its own: what shows more."""
WORDS = {"ok": "ok", "note": "ok", "warning": "warn", "unknown": "warn", "error": "fail"}
SECONDS = 10.0
"""For a step of the conversation with the SMTP server."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--postfix",
        type=Path,
        metavar="MAIN.CF",
        help=f"the Postfix to look at (default {MAIN_CF} where it is there)",
    )
    parser.add_argument(
        "--sendmail", type=Path, metavar="SENDMAIL.CF", help="instead of the configured one"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """0 when nothing fails, else 1. With a configuration that cannot be used nothing else is looked
    at."""
    found = [_with_remedy(one) for one in _diagnosis(arguments)]
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
    postfix = arguments.postfix or (MAIN_CF if MAIN_CF.exists() else None)
    yield from findings(config, postfix=postfix, sendmail=arguments.sendmail)
    yield from account.rights(config, arguments.config)
    yield from host.unit(config)
    yield from _report_path(config)
    yield from host.clock(time.time(), host.installed_at())
    yield host.versions()


def _with_remedy(one: Finding) -> Finding:
    mild = one.level in ("ok", "note")
    return one if mild or one.remedy else one._replace(remedy=ELSEWHERE.get(one.where, ""))


def _editor(path: Path, problem: str) -> str:
    """Opens the file where the mistake stands."""
    if not path.exists():
        return f"dmarc-milter config sample > {path}"
    file, _, rest = problem.partition(":")
    line = rest.partition(":")[0]
    at = f"+{line} " if line.isdecimal() else ""
    return f"{os.environ.get('EDITOR') or 'editor'} {at}{file if Path(file).exists() else path}"


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
            "start that mail server, or name another with `dmarc-milter config set reporting.smtp"
            " HOST:PORT` (also smtp_tls, smtp_user)",
        )
    else:
        yield Finding("ok", "report path", f"{options.smtp} lets us in")


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
