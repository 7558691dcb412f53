"""The reference page of the configuration, printed from the schema:
docs/reference/configuration.md."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import msgspec

from dmarc_milter.config.sample import TABLES, describe
from dmarc_milter.config.schema import Config
from dmarc_milter.config.schema_policy import PolicyRule
from dmarc_milter.config.schema_reporting import ReportingIdentity
from dmarc_milter.core.toml import toml

HEAD = """\
# Configuration

TOML, `/etc/dmarc-milter/dmarc-milter.toml` unless `--config` or the variable `DMARC_MILTER_CONFIG`
of the environment names another file. A key that is not there has its default. Unknown keys and
values that are not allowed are errors that name the file, the line, the key and what is allowed,
all of them at once (exit code 2). `dmarc-milter config check` reads the file as the daemon does and
tests it against the world; SIGHUP (`systemctl reload dmarc-milter`) applies it, and a bad file
changes nothing.

Settings may stand in three places; a later one has the last word:

1. the file;
2. `conf.d/*.toml` beside it, in the order of their names. Their `[[policy.rules]]` come after the
   file's;
3. the environment of the process: `DMARC_MILTER__SECTION__KEY`, the value as TOML, e.g.
   `DMARC_MILTER__DNS__NAMESERVERS='["192.0.2.1"]'`. Rules are read from files only.

`dmarc-milter config set policy.enforce true` changes one value in the file and leaves its comments,
mode and owner as they are; `dmarc-milter config show` prints what holds. `dmarc-milter config
json-schema` prints a JSON schema, with which editors complete keys and mark mistakes.

Only a restart changes `user`, `socket_mode` and `socket_group` of a socket that stays open, and
makes room for more than twice the workers of the start (or 16): the log then has
`event=restart_needed` with the keys. `[web]` is read by `dmarc-milter web` when that starts.

This page is printed by `dmarc-milter config reference`, the sample file
by `dmarc-milter config sample`.
"""


def reference() -> str:
    """The whole page, Markdown."""
    sections = [
        _section(field.name, getattr(Config(), field.name))
        for field in msgspec.structs.fields(Config)
    ]
    return HEAD + "".join(sections) + _rules() + _identities()


def _section(name: str, section: msgspec.Struct) -> str:
    hints = get_type_hints(type(section), include_extras=True)
    rows = "".join(
        _row(key, hint, toml(getattr(section, key)))
        for key, hint in hints.items()
        if key not in TABLES
    )
    return (
        f"\n## [{name}]\n\n{inspect.getdoc(type(section))}\n\n| key | default | meaning"
        f" |\n|---|---|---|\n{rows}"
    )


def _row(key: str, hint: Any, default: str) -> str:
    meaning = describe(hint).replace("|", "\\|")
    return f"| `{key}` | `{default}` | {meaning} |\n"


def _rules() -> str:
    """[[policy.rules]] has no defaults to show for what must be given."""
    return (
        "\n## [[policy.rules]]\n\nOrdered local rules. Every condition given must hold; a list"
        " holds when any of its values does; at least one condition is needed. The first rule that"
        " matches decides; `tag` rules only add their tag. A rule never changes a pass.\n\n"
        + _entries(PolicyRule, required=("action",))
    )


def _identities() -> str:
    return (
        "\n## [[reporting.identities]]\n\nHosted domains that report as themselves: mail whose"
        " recipients all belong to one identity is reported in its name, other mail in that of"
        " `[reporting]`. The first identity that fits counts.\n\n"
        + _entries(ReportingIdentity, required=("recipient_domains", "org_name", "email"))
    )


def _entries(kind: type[msgspec.Struct], *, required: tuple[str, ...]) -> str:
    """A table of what an entry takes."""
    hints = get_type_hints(kind, include_extras=True)
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    rows = ""
    for key, hint in hints.items():
        default = defaults[key]
        shown = (
            "required" if key in required else toml([] if default is msgspec.NODEFAULT else default)
        )
        rows += _row(key, hint, shown).replace("`required`", "required")
    return f"| key | default | meaning |\n|---|---|---|\n{rows}"
