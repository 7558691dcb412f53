"""Defects of authres, dnspython and the standard library, shown on them: each test fails when one
is mended, and its fence may go.

dkimpy's are in test_dkim_dkimpy.py, pyspf's in test_spf_pyspf.py, pymilter's in
tests/session/test_pymilter_defects.py.
"""

from __future__ import annotations

import email
import email.policy
import email.utils
from typing import Any

import authres
import dns.name
import pytest

from dmarc_milter.core.mail.author import author
from dmarc_milter.core.mail.domain import Domain, parse

# Python 3.13 and late patches of 3.11 and 3.12 have a stricter mode; the old one is what other
# programs still see.
LENIENT: dict[str, bool] = (
    {"strict": False} if hasattr(email.utils, "supports_strict_parsing") else {}
)


def read(text: str) -> Any:
    return authres.AuthenticationResultsHeader.parse(f"Authentication-Results: {text}")


def written(result: Any) -> str:
    return str(authres.AuthenticationResultsHeader(authserv_id="mx.example.com", results=[result]))


def test_authres_cannot_read_a_quoted_id() -> None:
    """docs/attacks.md ARF-04: whoever strips what parses keeps this. Fence: forgery.py reads it
    itself."""
    with pytest.raises(authres.SyntaxError):
        read('"mx.example.com"; dmarc=pass')


def test_authres_recurses() -> None:
    """ARF-07. Fence: no recursion in our reader."""
    with pytest.raises(RecursionError):
        read("(" * 5000)


def test_authres_writes_what_it_is_given() -> None:
    """ARI-01, ARI-02, ARI-04. Fence: our own writer, which refuses or quotes."""
    sender = "any@legit.example(a.attack.example"
    assert f"smtp.mailfrom={sender}" in written(
        authres.SPFAuthenticationResult(result="pass", smtp_mailfrom=sender)
    )
    assert "\r\nX-Inj: 1" in written(
        authres.DKIMAuthenticationResult(result="pass", header_d="a.example\r\nX-Inj: 1")
    )
    assert "() dmarc=pass ()" in written(
        authres.DKIMAuthenticationResult(result="pass", result_comment=") dmarc=pass (")
    )


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (b"admin@legit.example <a@attack.example>", "legit.example"),
        (b"<any@attack.example>admin@legit.example", "attack.example"),
        (b"<admin@legit.example>\\,<second@attack.example>", "legit.example"),
    ],
)
def test_parseaddr_sees_one_of_two(value: bytes, seen: str) -> None:
    """ESP-17, ESP-19, FRM-11: the first thing that looks like an address.
    Fence: mailbox_list.py and lenient.py."""
    assert email.utils.parseaddr(value.decode(), **LENIENT)[1].rpartition("@")[2] == seen
    assert author([value]).domain is None


def test_the_standard_parsers_recurse() -> None:
    """FRM-07. Fence: comments are counted, not recursed into."""
    with pytest.raises(RecursionError):
        email.utils.getaddresses(["(" * 5000], **LENIENT)


def test_email_policy_decodes_a_domain() -> None:
    """FRM-26: an encoded word becomes the domain. Fence: an encoded word is never part of an
    addr-spec."""
    message = email.message_from_bytes(
        b"From: admin@=?utf-8?Q?legit.example?=\r\n\r\n", policy=email.policy.default
    )
    assert [each.domain for each in message["from"].addresses] == ["legit.example"]
    assert author([b"admin@=?utf-8?Q?legit.example?="]).domain is None


def test_python_folds_u_labels_as_idna2003() -> None:
    """FRM-20: another domain than the one that is displayed. Fence: domain.parse knows IDNA2008
    only."""
    assert "straße.example".encode("idna") == b"strasse.example"
    assert parse("straße.example") == Domain("xn--strae-oqa.example")


def test_dnspython_maps_full_stops() -> None:
    """FRM-21: names are mapped silently on the way to a question. Fence: our own client asks for
    A-labels of domain.parse only."""
    assert dns.name.from_text("legit。example") == dns.name.from_text("legit.example")
