"""The sample file and `config show`, printed from the schema so that they cannot drift from the
code."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from dmarc_milter.config.schema import Config
from dmarc_milter.config.schema_policy import PolicyRule
from dmarc_milter.config.schema_reporting import ReportingIdentity
from dmarc_milter.core.toml import toml

HEAD = """\
# dmarc-milter.toml: every option at its default. A line that is not there means the default.
# `dmarc-milter config check` reads this file as the daemon does.
# SIGHUP (systemctl reload) applies it.
"""

TABLES: dict[str, type[msgspec.Struct]] = {"rules": PolicyRule, "identities": ReportingIdentity}
"""Keys that are arrays of tables."""
HEADINGS = {
    PolicyRule: (
        "Ordered local rules; the first that matches decides. Each [[policy.rules]] takes:",
    ),
    ReportingIdentity: (
        "Hosted domains that report as themselves. Each [[reporting.identities]] takes:",
    ),
}


def sample() -> str:
    """Every option at its default, each with its sentence; local rules as a comment."""
    return HEAD + _body(Config(), described=True)


def show(config: Config) -> str:
    """The effective configuration as TOML."""
    return _body(config, described=False)


def _body(config: Config, *, described: bool) -> str:
    parts = []
    for field in msgspec.structs.fields(Config):
        section = getattr(config, field.name)
        lines = [f"\n[{field.name}]"]
        if described:
            lines += [f"# {line}" for line in (inspect.getdoc(type(section)) or "").splitlines()]
        hints = get_type_hints(type(section), include_extras=True)
        for name, hint in hints.items():
            if name not in TABLES:
                lines.extend(_line(name, getattr(section, name), hint, described=described))
        for name, kind in TABLES.items():
            if name in hints:
                key = f"{field.name}.{name}"
                lines.extend(_tables(key, kind, getattr(section, name), described=described))
        parts.append("\n".join(lines) + "\n")
    return "".join(parts).lstrip("\n") if not described else "".join(parts)


def _line(name: str, value: object, hint: Any, *, described: bool) -> list[str]:
    text = f"{name} = {toml(value)}"
    return [f"# {describe(hint)}", text] if described else [text]


def describe(hint: Any) -> str:
    """The option's sentence with its choices or bounds."""
    kind, *metas = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    meta = next((meta for meta in metas if isinstance(meta, msgspec.Meta)), None)
    words = [meta.description or ""] if meta else []
    if get_origin(kind) is Literal:
        words.append("(" + " | ".join(get_args(kind)) + ")")
    if meta and (meta.ge is not None or meta.le is not None):
        low, high = meta.ge, meta.le
        words.append(
            f"(from {low})"
            if high is None
            else (
                f"({low} to {high})"
                if low is not None
                else f"(more than {meta.gt}, at most {high})"
            )
        )
    return " ".join(words)


def _tables(
    key: str, kind: type[msgspec.Struct], entries: list[msgspec.Struct], *, described: bool
) -> list[str]:
    """The entries of an array of tables, and as a comment what each takes."""
    lines: list[str] = []
    if described:
        lines += ["", *(f"# {line}" for line in HEADINGS[kind]), f"# [[{key}]]"]
        for name, hint in get_type_hints(kind, include_extras=True).items():
            lines += [f"# {name} = {_example(kind, name)}  # {describe(hint)}"]
    for entry in entries:
        lines += ["", f"[[{key}]]"]
        lines += [f"{name} = {toml(getattr(entry, name))}" for name in get_type_hints(kind)]
    return lines


def _example(kind: type[msgspec.Struct], name: str) -> str:
    examples = {
        "action": '"accept"',
        "comment": '"members\' list"',
        "author_domains": '["example.org"]',
        "dkim": '["lists.example.net"]',
        "recipient_domains": '["hosted.example"]' if kind is ReportingIdentity else "",
        "org_name": '"Hosted Inc."',
        "email": '"dmarc@hosted.example"',
    }
    default = next(field.default for field in msgspec.structs.fields(kind) if field.name == name)
    return examples.get(name) or toml([] if default is msgspec.NODEFAULT else default)
