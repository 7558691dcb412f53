"""Print the manual pages from the command line's own parser and the configuration's own schema, so
that they cannot drift.

python tools/man_pages.py docs/man      writes dmarc-milter.8, dmarc-milter.toml.5, and a page of
                                        section 1 for each command
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path
from typing import get_type_hints

import msgspec

from dmarc_milter.cli.actions import ACTION_EXAMPLES
from dmarc_milter.cli.main import COMMANDS, EXAMPLES, load_command, module_of
from dmarc_milter.config.checks import socket_address
from dmarc_milter.config.load import CONFIG_VARIABLE
from dmarc_milter.config.sample import TABLES, describe
from dmarc_milter.config.schema import Config
from dmarc_milter.config.schema_policy import PolicyRule
from dmarc_milter.config.schema_reporting import ReportingIdentity
from dmarc_milter.core.toml import toml
from dmarc_milter.mta import setup_lines

ABOUT = """\
dmarc-milter is a mail filter for Postfix and Sendmail. For every message from outside it verifies
SPF, DKIM and ARC, evaluates DMARC, applies the policy that the author's domain publishes and the
administrator's own rules, writes an Authentication-Results field, and records what it saw, from
which it sends aggregate and failure reports.
"""
FORMAT = (
    "TOML. A key that is not there has the default shown here. Unknown keys and bad values are"
    " errors.\n"
)
STATUS = (
    ("0", "fine"),
    (
        "1",
        (
            "the answer is no: nothing found, something wrong, or a message that would not be"
            " delivered plainly"
        ),
    ),
    ("2", "usage or configuration error; one line says what to do"),
    ("75", "try again later: the store or the DNS does not answer"),
)
SIGNALS = (
    ("SIGHUP", "read the configuration again; a bad file changes nothing"),
    ("SIGTERM", "finish the sessions in flight and stop; a second one stops at once"),
)
FILES = (
    ("/etc/dmarc-milter/dmarc-milter.toml", "configuration, see dmarc-milter.toml(5)"),
    ("/var/lib/dmarc-milter", "spool and store"),
)


VARIABLE = "the configuration file, where --config names none"
SETTINGS = "DMARC_MILTER__SECTION__KEY"
SETTING = "a setting, its value as TOML; it goes above the files"
RELATED = {
    "serve": ("ready", "setup", "doctor", "web"),
    "check": ("why", "domain", "rules"),
    "why": ("allow", "check", "impact"),
    "allow": ("why", "rules"),
    "doctor": ("config", "setup", "store"),
    "ready": ("serve", "doctor"),
    "domain": ("check", "why"),
    "impact": ("stats", "why", "rules"),
    "rules": ("allow", "impact", "config"),
    "report": ("store", "summary"),
    "stats": ("impact", "summary"),
    "summary": ("stats", "report"),
    "config": ("doctor", "setup", "import"),
    "store": ("report", "doctor"),
    "web": ("stats", "why"),
    "setup": ("doctor", "config"),
    "import": ("config", "setup"),
}
"""The pages that readers of a command's page want next."""


def escaped(text: str) -> str:
    """Text as troff takes it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace('"', "\\(dq")
    return "\n".join("\\&" + line if line.startswith(".") else line for line in text.split("\n"))


def item(head: str, text: str) -> str:
    return f".TP\n.B {escaped(head)}\n{escaped(text)}\n"


def section(name: str, body: str) -> str:
    return f".SH {name}\n{body}"


def page_8() -> str:
    """dmarc-milter(8)."""
    commands = "".join(
        f".TP\n{reference(page_name(name), 1)}\n{escaped(capital(COMMANDS[name]))}\n"
        for name in commands_here()
    )
    return (
        '.TH DMARC\\-MILTER 8 "" "dmarc-milter"\n'
        + section("NAME", "dmarc\\-milter \\- verify, enforce and report DMARC for inbound mail\n")
        + section("SYNOPSIS", ".B dmarc\\-milter\n.I COMMAND\n.RI [ options ]\n")
        + section("DESCRIPTION", escaped(ABOUT))
        + section("COMMANDS", commands)
        + section("ATTACHING", attaching())
        + section("SIGNALS", "".join(item(*each) for each in SIGNALS))
        + section("EXIT STATUS", "".join(item(*each) for each in STATUS))
        + section("FILES", "".join(item(*each) for each in FILES))
        + section(
            "SEE ALSO",
            "dmarc\\-milter.toml(5), postconf(5), RFC 9989, RFC 9990, RFC 9991, RFC 8601\n",
        )
    )


def attaching() -> str:
    """The MTAs' lines, as everywhere."""
    address = socket_address("inet:8893@127.0.0.1")
    sendmail = setup_lines.with_reasons(setup_lines.sendmail_lines(address), "dnl")
    return "".join(
        f".TP\n.B {where}\n.nf\n{escaped(chr(10).join(lines))}\n.fi\n"
        for where, lines in (
            ("main.cf of Postfix, then postfix reload", setup_lines.postfix_lines(address)),
            ("sendmail.mc of Sendmail, before MAILER(), then rebuild sendmail.cf", sendmail),
        )
    )


def commands_here() -> list[str]:
    """Those that this installation has."""
    return [name for name in COMMANDS if module_of(name)]


def page_name(command: str) -> str:
    """What the command's page is called, of section 1."""
    return f"dmarc-milter-{command}"


def reference(page: str, number: int) -> str:
    """A page with its section, as a line of its own."""
    return f".BR {escaped(page)} ({number})"


def capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."


def page_1(name: str) -> str:
    """dmarc-milter-NAME(1): a command with its options, and its subcommands with theirs."""
    parser = argparse.ArgumentParser(prog=f"dmarc-milter {name}", add_help=False)
    load_command(name).add_arguments(parser)
    shown = page_name(name)
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    below = [each for of, some in ACTION_EXAMPLES.items() if of.split()[0] == name for each in some]
    lines = dict.fromkeys([*EXAMPLES[name], *below])
    examples = "\n".join(f"dmarc-milter {each}" for each in lines)
    others = [each for each in commands_here() if each != name and each in RELATED.get(name, ())]
    see = [reference("dmarc-milter", 8), reference("dmarc-milter.toml", 5)]
    see += [reference(page_name(each), 1) for each in others]
    return (
        f'.TH {escaped(shown).upper()} 1 "" "dmarc-milter"\n'
        + section("NAME", f"{escaped(shown)} \\- {escaped(COMMANDS[name])}\n")
        + section("SYNOPSIS", f"{escaped(usage)}\n")
        + section("DESCRIPTION", f"{escaped(capital(COMMANDS[name]))}\n")
        + section("OPTIONS", options(parser, ""))
        + section("EXAMPLES", f".nf\n{escaped(examples)}\n.fi\n")
        + section("EXIT STATUS", "".join(item(*each) for each in STATUS))
        + section("ENVIRONMENT", item(CONFIG_VARIABLE, VARIABLE) + item(SETTINGS, SETTING))
        + section("FILES", "".join(item(*each) for each in FILES))
        + section("SEE ALSO", ",\n".join(see).replace(",\n", " ,\n") + "\n")
    )


def options(parser: argparse.ArgumentParser, prefix: str) -> str:
    text = ""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
            for name, child in action.choices.items():
                text += (
                    item(f"{prefix}{name}", str(helps.get(name, "")))
                    + f".RS\n{options(child, '')}.RE\n"
                )
        elif not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            head = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            shown = f" {_value(action)}" if action.option_strings and action.nargs != 0 else ""
            text += item(
                head + shown, str(action.help or "").replace("%(default)s", str(action.default))
            )
    return text


def _value(action: argparse.Action) -> str:
    """What stands behind the option: the words that it takes, where they are few."""
    return str(
        action.metavar
        or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    )


def page_5() -> str:
    """dmarc-milter.toml(5)."""
    sections = ""
    for field in msgspec.structs.fields(Config):
        defaults = getattr(Config(), field.name)
        sections += section(
            escaped(f"[{field.name}]").upper(), escaped(inspect.getdoc(type(defaults)) or "") + "\n"
        )
        for key, hint in get_type_hints(type(defaults), include_extras=True).items():
            if key not in TABLES:
                sections += item(f"{key} = {toml(getattr(defaults, key))}", describe(hint))
    for heading, kind in (
        ("POLICY.RULES", PolicyRule),
        ("REPORTING.IDENTITIES", ReportingIdentity),
    ):
        sections += section(f"[[{heading}]]", escaped(inspect.getdoc(kind) or "") + "\n")
        sections += "".join(
            item(key, describe(hint))
            for key, hint in get_type_hints(kind, include_extras=True).items()
        )
    return (
        '.TH DMARC\\-MILTER.TOML 5 "" "dmarc-milter"\n'
        + section("NAME", "dmarc\\-milter.toml \\- configuration of dmarc\\-milter(8)\n")
        + section("DESCRIPTION", escaped(FORMAT))
        + sections
        + section("SEE ALSO", "dmarc\\-milter(8)\n")
    )


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dmarc-milter.8").write_text(page_8(), encoding="utf-8")
    (folder / "dmarc-milter.toml.5").write_text(page_5(), encoding="utf-8")
    for old in folder.glob("dmarc-milter-*.1"):
        old.unlink()
    for name in commands_here():
        (folder / f"{page_name(name)}.1").write_text(page_1(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
