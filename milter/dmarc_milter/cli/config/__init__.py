"""`dmarc-milter config check | show | set | sample | reference | json-schema`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from dmarc_milter.cli.actions import add_action
from dmarc_milter.cli.main import EXIT_NO, EXIT_OK
from dmarc_milter.config import DEFAULT_PATH, load
from dmarc_milter.config.json_schema import json_schema
from dmarc_milter.config.reference import reference
from dmarc_milter.config.sample import sample, show

ACTIONS = {
    "check": (
        "validate the file and test the installation: socket, DNS, store, identity, report sender"
    ),
    "show": "print the effective configuration",
    "set": "change one value in the file; its comments, mode and owner stay",
    "sample": "print a sample file",
    "json-schema": "print a JSON schema of the file, for editors",
    "reference": "print the reference page (Markdown)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True)
    for name, sentence in ACTIONS.items():
        command = add_action(what, "config", name, sentence)
        if name == "set":
            command.add_argument("key", metavar="SECTION.KEY", help="such as policy.enforce")
            command.add_argument(
                "value", metavar="VALUE", help='TOML: true, 5, ["a", "b"]; or text'
            )
        if name == "check":
            _check_arguments(command)


def _check_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--offline",
        action="store_true",
        help="only the file itself: no socket, DNS or store is touched",
    )
    command.add_argument(
        "--syntax",
        action="store_true",
        help="only whether the file itself is right: exit code 2 where not, and nothing else is"
        " printed (the service's reload asks this first)",
    )
    command.add_argument(
        "--postfix",
        type=Path,
        metavar="MAIN.CF",
        help="look at this Postfix too (its master.cf is read from the same folder)",
    )
    command.add_argument(
        "--sendmail",
        type=Path,
        metavar="SENDMAIL.CF",
        help="instead of the configured one, where that is there",
    )
    command.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    match arguments.what:
        case "sample":
            print(sample(), end="")
        case "reference":
            print(reference(), end="")
        case "json-schema":
            print(json_schema(), end="")
        case "set":
            return _set(arguments)
        case "show":
            print(show(load(arguments.config)), end="")
        case _:
            return _check(arguments)
    return EXIT_OK


def _set(arguments: argparse.Namespace) -> int:
    from dmarc_milter.cli.config.set_value import set_value
    from dmarc_milter.cli.running import to_apply

    try:
        print(set_value(arguments.config, arguments.key, arguments.value))
    except OSError as error:
        print(f"dmarc-milter: {arguments.config}: {error.strerror}", file=sys.stderr)
        return EXIT_NO
    print(to_apply(arguments.config))
    return EXIT_OK


def _check(arguments: argparse.Namespace) -> int:
    """0 when nothing is an error, else 1 (2, from `load`, for the file itself)."""
    from dmarc_milter.checks import host, remedies
    from dmarc_milter.checks.installation import findings
    from dmarc_milter.cli.terminal import console, print_json, styled
    from dmarc_milter.config.instance import instance
    from dmarc_milter.core.check_finding import Finding

    config = load(arguments.config)
    if arguments.syntax:
        return EXIT_OK
    found = [
        Finding("ok", "file", str(arguments.config)),
        *findings(
            config,
            postfix=arguments.postfix,
            sendmail=arguments.sendmail,
            offline=arguments.offline,
            of=instance(arguments.config),
        ),
    ]
    if arguments.json:
        place = partial(
            remedies.placed,
            config=None if arguments.config == DEFAULT_PATH else arguments.config,
            main_cf=None if arguments.postfix == host.MAIN_CF else arguments.postfix,
        )
        found = [one._replace(remedy=place(one.remedy)) for one in found]
        names = ("level", "what", "text", "remedy")
        print_json({"findings": [dict(zip(names, finding, strict=True)) for finding in found]})
    else:
        screen = console()
        for finding in found:
            word = styled(finding.level)
            word.pad_right(8 - len(finding.level))
            screen.print(word, f"{finding.where}: {finding.text}", soft_wrap=True)
    return EXIT_NO if any(finding.level == "error" for finding in found) else EXIT_OK
