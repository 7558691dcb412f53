"""The old routes `a%b` and `b!a` in front of an @, which some mail servers still rewrite."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dmarc_milter.core.mail.domain import Domain, parse
from dmarc_milter.core.mail.lenient import without_comments

MAX_ROUTES = 100
"""Distinct names in old routes that are looked at."""
# One that never ends is matched too, and kept: no later one ends where the first does not.
ROUTE_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+("|\\?\Z)', re.DOTALL)
# What stands by itself between separators, or behind the first odd character after an @, and has no
# @ after it. Begun anywhere else it ends at the same place, so a search at each is quadratic.
ROUTE_WORD = re.compile(
    r"(?:(?<![^\s,;:<>])|(?<=@)[\w.%!+-]*+[^\w.%!+\-\s,;:<>@])([^\s,;:<>@]++)(?!@)"
)


def old_routes(values: Sequence[bytes]) -> tuple[tuple[Domain, ...], bool]:
    """The domains of addresses from before the @, in these fields, and whether there are more than
    are looked at: every Sendmail rewrites `a%b` and `b!a` to `a@b` when it delivers.

    The domain is what stands before the first `!`, or else behind the last `%` (ruleset 3 of its
    proto.m4). Never raises. A single label is none: `50%off` and `Wow!` are words.
    """
    names: dict[str, None] = {}
    for name in (name for value in values for name in _routed_to(value)):
        names[name] = None
        if len(names) > MAX_ROUTES:
            break
    domains = [name for name in map(parse, list(names)[:MAX_ROUTES]) if isinstance(name, Domain)]
    return tuple(dict.fromkeys(domains)), len(names) > MAX_ROUTES


def _routed_to(value: bytes) -> Iterator[str]:
    """What may be a name of more than one label in the old routes of a field."""
    if b"%" not in value and b"!" not in value:
        return
    text = value.decode("utf-8", "replace")
    unquoted = ROUTE_QUOTED.sub(lambda match: " " if match[1] == '"' else match[0], text)
    for match in ROUTE_WORD.finditer(without_comments(unquoted)):
        word = match[1]
        name = word.partition("!")[0] if "!" in word else word.rpartition("%")[2]
        if "." in name.strip(".") and name != word:
            yield name
