"""The summary as a mail: plain text and HTML of the same content."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import NamedTuple

from dmarc_milter import __version__
from dmarc_milter.cli.summary.digest import Digest
from dmarc_milter.core.explain.done import DONE, STOPPED, WOULD_BE
from dmarc_milter.core.text import printable

NAME = 100
"""Characters of a stranger's name that are shown."""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title></head>
<body style="font-family: sans-serif; max-width: 42rem; margin: 1rem auto; padding: 0 1rem">
<h1 style="font-size: 1.3rem">{{ title }}</h1>
{% for part in parts %}<h2 style="font-size: 1.05rem">{{ part.heading }}</h2>
<ul>{% for line in part.lines %}<li>{{ line }}</li>{% endfor %}</ul>
{% for rule in part.rules %}<pre style="background: #8882; padding: .5rem">{{ rule }}</pre>
{% endfor %}
{% endfor %}<p style="color: #666">Written by dmarc-milter {{ version }}.</p>
</body></html>
"""


class LetterPart(NamedTuple):
    """A heading, a sentence each, and rules to copy."""

    heading: str
    lines: tuple[str, ...]
    rules: tuple[str, ...] = ()


def title(digest: Digest, host: str) -> str:
    """Such as "dmarc-milter at mx.example.com, 2026-11-23 to 2026-11-29"."""
    first, last = _day(digest.since), _day(digest.until - 1)
    return f"dmarc-milter at {host}, {first}" + (f" to {last}" if last != first else "")


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def parts(digest: Digest) -> Iterator[LetterPart]:
    """Only what there is something to say of, but for the numbers and what to do."""
    yield LetterPart("Mail", tuple(_numbers(digest)))
    if digest.new_senders:
        yield LetterPart(
            "Lists and forwarders that policy met for the first time",
            tuple(
                f"{one.messages:,} messages: {_short(one.evidence)}" for one in digest.new_senders
            ),
            tuple(one.rule for one in digest.new_senders if one.rule),
        )
    if digest.failing:
        yield LetterPart(
            "Domains whose mail began to fail",
            tuple(
                f"{_short(one.author_domain)}: {one.failed:,} of {one.messages:,} messages fail now"
                for one in digest.failing
            ),
        )
    if digest.waiting:
        yield LetterPart("Mail that waits", tuple(_waiting(digest)))
    if digest.undelivered:
        yield LetterPart(
            "Reports that could not be delivered",
            tuple(
                f"{_short(one.policy_domain)}: {one.state.value}, {_short(one.note) or 'no reason'}"
                for one in digest.undelivered
            ),
        )
    yield LetterPart("What to do", tuple(_advice(digest)))


def _short(text: str) -> str:
    return printable(text, NAME)


def _numbers(digest: Digest) -> Iterator[str]:
    share = digest.by_status.get("pass", 0) / digest.messages if digest.messages else 0.0
    yield f"{digest.messages:,} messages from outside; {share:.0%} passed DMARC"
    for kind in STOPPED:
        code = " (451)" if kind == "tempfail" else ""
        did, would = digest.became.get(DONE[kind], 0), digest.became.get(WOULD_BE[kind], 0)
        if did or digest.enforce:
            yield f"{did:,} {DONE[kind]}{code}"
        if would or not digest.enforce:
            yield f"{would:,} would have been {DONE[kind]}{code}"
    if temporary := digest.by_status.get("temperror", 0):
        yield f"{temporary:,} could not be judged, since the DNS did not answer"
    for looked, when in ((digest.looked, ""), (digest.looked_before, " of the time before")):
        if looked.looked_at < looked.messages:
            yield (
                f"{looked.looked_at:,} of {looked.messages:,} stopped messages{when}, of the"
                " clients with most, were searched for lists and forwarders"
            )


def _waiting(digest: Digest) -> Iterator[str]:
    for one in digest.waiting:
        name = f", for the DNS of {_short(one.failing_name)}" if one.failing_name else ""
        yield f"{_short(one.author_domain)}: {one.attempts:,} attempts{name}"


def _advice(digest: Digest) -> Iterator[str]:
    """A command for each thing that there is to do."""
    if digest.new_senders:
        yield "Lists and forwarders you know: copy the rule, or dmarc-milter allow QUEUE-ID --apply"
    for one in digest.failing[:3]:
        yield f"dmarc-milter domain {_short(one.author_domain)} shows what it publishes now"
    if digest.waiting:
        yield "dmarc-milter impact shows for which DNS names mail waits, and rules that end it"
    if digest.undelivered:
        yield "dmarc-milter report list shows these reports; report suppress ends them"
    if not digest.enforce:
        yield "Monitor mode: dmarc-milter impact, then dmarc-milter config set policy.enforce true"
    if digest.enforce and not (
        digest.new_senders or digest.failing or digest.waiting or digest.undelivered
    ):
        yield "Nothing."


def text(digest: Digest, host: str) -> str:
    """Plain text, lines of at most 78 characters where words allow it."""
    lines = [title(digest, host), ""]
    for part in parts(digest):
        lines += [part.heading, *(f"- {line}" for line in part.lines)]
        for rule in part.rules:
            lines += ["", *(f"    {line}" for line in rule.split("\n"))]
        lines.append("")
    return "\n".join(lines)


def html(digest: Digest, host: str) -> str:
    """One page without anything to fetch; every value is escaped."""
    from jinja2 import Environment  # takes long to load, and the text needs it not

    template = Environment(autoescape=True).from_string(PAGE)
    return template.render(
        title=title(digest, host), parts=list(parts(digest)), version=__version__
    )


def letter(digest: Digest, host: str, sender: str, recipient: str, now: datetime) -> bytes:
    """The mail (RFC 5322); `host` is authserv_id."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f"dmarc-milter <{sender}>"
    mail["To"] = recipient
    mail["Subject"] = title(digest, host)
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text(digest, host))
    mail.add_alternative(html(digest, host), subtype="html")
    return mail.as_bytes()
