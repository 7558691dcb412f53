"""A JSON schema of the file, for editors that complete keys and mark mistakes while one types."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec

from dmarc_milter.config.sample import describe
from dmarc_milter.config.schema import Config
from dmarc_milter.config.schema_policy import PolicyRule


def json_schema() -> str:
    """The schema (JSON Schema 2020-12), indented; from the same types that read the file."""
    (reference,), parts = msgspec.json.schema_components([Config], ref_template="#/$defs/{name}")
    for name, part in parts.items():
        _describe(name, part)
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dmarc-milter.toml",
        **reference,
        "$defs": parts,
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def _describe(name: str, part: dict[str, Any]) -> None:
    """Each key has the sentence of the sample file."""
    for kind in _sections():
        if kind.__name__ == name:
            hints = get_type_hints(kind, include_extras=True)
            for key, option in part["properties"].items():
                if sentence := describe(hints[key]):
                    option["description"] = sentence


def _sections() -> list[type[msgspec.Struct]]:
    return [PolicyRule, *(get_type_hints(Config)[name] for name in Config.__struct_fields__)]
