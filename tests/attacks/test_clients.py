"""One connection of the MTA that goes on with another client: nothing of the first one may speak
for the second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from fakes import strict_authres
from fakes.attack import RunningDaemon, Stage, own_field, spoof
from fakes.milter_client import MilterClient

INSIDE, OUTSIDE = "198.51.100.10", "192.0.2.66"
"""The victim's own client, whose SPF passes, and the attacker's."""
Step = Callable[[MilterClient], object]


@pytest.fixture
def running(stage: Stage) -> Iterator[RunningDaemon]:
    stage.script({})
    running = stage.running("monitor", {"authentication": {"trusted_networks": ["203.0.113.0/24"]}})
    yield running
    running.new_lines()


def connect(address: str | None, **macros: str) -> Step:
    """CONNECT; the macros of the MTA unless others are given: `client_addr="..."`."""
    given = macros or {"client_addr": address or "unknown", "daemon_name": "smtpd"}
    return lambda mta: mta.connect("mail.legit.example", address, macros=named(given))


def named(macros: Mapping[str, str]) -> dict[str, str]:
    return {f"{{{name}}}": value for name, value in macros.items()}


def helo(mta: MilterClient) -> None:
    mta.helo("mail.legit.example")


def quit_nc(mta: MilterClient) -> None:
    mta.quit_nc()


def begun(mta: MilterClient) -> None:
    """A message that is left in the middle."""
    mta.mail("<admin@legit.example>")
    mta.rcpt("<v@example.com>")


def aborted(mta: MilterClient) -> None:
    begun(mta)
    mta.abort()


def forged(
    mta: MilterClient, mail_from: str = "<admin@legit.example>", **macros: str
) -> strict_authres.Field | None:
    """What our field says of a message in the victim's name; None where it was not evaluated."""
    return own_field(mta.message(spoof().fields, mail_from=mail_from, macros=named(macros)))


def spf(
    running: RunningDaemon, *steps: Step, mail_from: str = "<admin@legit.example>", **macros: str
) -> str:
    """spf= of a forged message after these steps; "exempt" where it was not evaluated."""
    with MilterClient(running.daemon.address, timeout=10) as mta:
        mta.negotiate()
        for step in steps:
            step(mta)
        ours = forged(mta, mail_from, **macros)
    return "exempt" if ours is None else ours.one("spf").result


FLOWS = {
    "HDR-13 after a message": (helo, forged, quit_nc),
    "HDR-13 after an aborted one": (helo, aborted, quit_nc),
    "HDR-14 before HELO": (quit_nc,),
    "HDR-14 after HELO": (helo, quit_nc),
    "HDR-14 in a message": (helo, begun, quit_nc),
    "HDR-15 no QUIT_NC": (),
    "HDR-15 no QUIT_NC after HELO": (helo,),
    "HDR-15 no QUIT_NC after a message": (helo, forged),
    "HDR-15 no QUIT_NC in a message": (helo, begun),
}


@pytest.mark.parametrize("greeted", [True, False], ids=["HELO", "no HELO"])
@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_the_second_client_is_judged_by_its_own_address(
    running: RunningDaemon, flow: tuple[Step, ...], greeted: bool
) -> None:
    """HDR-13..15: libmilter drops a CONNECT, and a QUIT_NC, where it expects none; `{client_addr}`
    still tells."""
    after = (helo,) if greeted else ()
    assert spf(running, connect(INSIDE), *flow, connect(OUTSIDE), *after) == "fail"
    assert spf(running, connect(OUTSIDE), *flow, connect(INSIDE), *after) == "pass"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (OUTSIDE, "fail"),
        (INSIDE, "pass"),
        (f"::ffff:{INSIDE}", "pass"),
        (f"IPv6:::ffff:{OUTSIDE}", "fail"),
        ("IPv6:2001:db8::66", "fail"),
        ("2001:db8::66", "fail"),
        (f"[{OUTSIDE}]", "fail"),
        ("unknown", "none"),
        ("198.51.100.10.example", "none"),
        ("\x1b[31m", "none"),
        ("203.0.113.9", "exempt"),
    ],
)
def test_what_the_mta_says_at_mail_counts(running: RunningDaemon, given: str, word: str) -> None:
    """HDR-16: `{client_addr}` of MAIL over what CONNECT said; text that is no address is a client
    without one."""
    assert spf(running, connect(INSIDE), helo, client_addr=given) == word


def test_a_missing_client_addr_leaves_what_connect_said(running: RunningDaemon) -> None:
    """HDR-16: an MTA that names no `{client_addr}` has said all at CONNECT."""
    assert spf(running, connect(INSIDE, j="mx"), helo) == "pass"
    assert spf(running, connect(OUTSIDE, j="mx"), helo) == "fail"


def test_a_trusted_client_before_exempts_nobody(running: RunningDaemon) -> None:
    """HDR-17: neither its network nor the name of its daemon."""
    for first in (connect("203.0.113.9"), connect(INSIDE, client_addr=INSIDE, daemon_name="MSA")):
        for flow in FLOWS.values():
            steps = [step for step in flow if step is not forged]
            assert spf(running, first, *steps, connect(OUTSIDE), helo) == "fail"


def test_the_daemon_named_at_mail_counts(running: RunningDaemon) -> None:
    """HDR-17: `{daemon_name}` of MAIL over that of CONNECT, either way."""
    assert (
        spf(
            running,
            connect(OUTSIDE, client_addr=OUTSIDE, daemon_name="MSA"),
            helo,
            daemon_name="smtpd",
        )
        == "fail"
    )
    assert spf(
        running,
        connect(OUTSIDE, client_addr=OUTSIDE, daemon_name="smtpd"),
        helo,
        daemon_name="ORIGINATING",
    ) in ("exempt", "fail")


def test_helo_of_the_first_client_is_not_the_second_ones(running: RunningDaemon) -> None:
    """HDR-18: with a null sender HELO is what SPF checks (RFC 7208 2.4); without a HELO of its own
    there is none."""
    assert spf(running, connect(OUTSIDE), helo, connect(INSIDE), mail_from="<>") == "none"
    assert spf(running, connect(OUTSIDE), helo, mail_from="<>", client_addr=INSIDE) == "none"
    assert spf(running, connect(OUTSIDE), connect(INSIDE), helo, mail_from="<>") == "pass"
    assert spf(running, connect(INSIDE), helo, mail_from="<>", client_addr=INSIDE) == "pass"


def test_macros_that_libmilter_kept_over_quit_nc_are_nobodys(running: RunningDaemon) -> None:
    """HDR-19: a CONNECT without macros must not be explained by those of the client before."""
    first = connect("203.0.113.9", client_addr="203.0.113.9", daemon_name="MSA")
    silent: Step = lambda mta: mta.connect("mx.attack.example", OUTSIDE)  # noqa: E731
    nameless: Step = lambda mta: mta.connect("mx.attack.example", None)  # noqa: E731
    assert spf(running, first, helo, aborted, quit_nc, silent, helo) == "fail"
    assert spf(running, first, helo, aborted, quit_nc, nameless, helo) == "none"


def test_a_login_ends_with_its_client(running: RunningDaemon) -> None:
    """HDR-20: `{auth_authen}` of one message exempts neither the next client nor a message whose
    macros do not name it."""
    authenticated: Step = lambda mta: forged(mta, client_addr=INSIDE, auth_authen="alice")  # noqa: E731
    assert spf(running, connect(INSIDE), helo, authenticated, client_addr=OUTSIDE) == "fail"
    assert (
        spf(running, connect(INSIDE), helo, authenticated, quit_nc, connect(OUTSIDE), helo)
        == "fail"
    )
    assert spf(running, connect(INSIDE), helo, client_addr=INSIDE, auth_authen="alice") == "exempt"
