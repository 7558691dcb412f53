"""Eight messages through a private Postfix, one by one: what the client was told, the field that
was added, and why."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "milter"), str(REPOSITORY / "tests")]

from live.attached import AttachedPostfix, postfix_with_milter  # the paths come first  # noqa: E402  # the paths come first
from live.place import cannot_run  # noqa: E402  # the paths come first
from live.scenarios import (  # noqa: E402  # the paths come first
    Scenario,
    disposition_said,
    dmarc_word,
    field_names,
    our_fields,
    scenarios,
)


def main() -> int:
    """0 when every outcome is right, 1 when one is wrong, 2 when the private Postfix cannot run
    here."""
    reason = cannot_run()
    if reason:
        print(f"demo: {reason}", file=sys.stderr)
        return 2
    wrong = 0
    with postfix_with_milter() as attached:
        print(
            f"private DNS at {attached.dns.nameserver}, milter at {attached.socket}, Postfix at"
            f" 127.0.0.1:{attached.mta.port}"
        )
        for number, scenario in enumerate(scenarios(), 1):
            print(
                f"\n{number}. {scenario.name}: {scenario.client.address} sends as"
                f" <{scenario.mail_from}>"
            )
            mistakes = _play(attached, scenario, f"demo{number}")
            wrong += bool(mistakes)
            print(_wrapped(f"WRONG: {'; '.join(mistakes)}" if mistakes else scenario.sentence))
    print(f"\n{len(scenarios()) - wrong} of {len(scenarios())} outcomes are right")
    return 1 if wrong else 0


def _play(attached: AttachedPostfix, scenario: Scenario, user: str) -> list[str]:
    """Send it, print the reply and the field; what differs from what should have happened."""
    reply = attached.mta.send(
        scenario.message, user, client=scenario.client, mail_from=scenario.mail_from
    )
    print(_wrapped(f"{reply.code} {reply.text}"))
    if reply.code != 250 or scenario.code != 250:
        return (
            []
            if reply.code == scenario.code
            else [f"reply {reply.code} instead of {scenario.code}"]
        )
    message = attached.mta.delivered(user)
    fields = our_fields(message)
    for field in fields:
        print(_wrapped(f"Authentication-Results: {field}"))
    if "x-dmarc-quarantine" in field_names(message):
        print(_wrapped("X-DMARC-Quarantine: yes ..."))
    found = [(dmarc_word(field), disposition_said(field)) for field in fields]
    expected = [(scenario.dmarc, scenario.disposition)]
    mistakes = [] if found == expected else [f"{found} instead of {expected}"]
    if scenario.gone and scenario.gone in message:
        mistakes.append("the forged field arrived")
    return mistakes


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text,
        110,
        initial_indent="   ",
        subsequent_indent="     ",
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    sys.exit(main())
