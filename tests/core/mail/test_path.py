"""SMTP paths: the envelope sender and recipients (RFC 5321 4.1.2, appendix C)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.mail.domain import Domain, Malformed
from dmarc_milter.core.mail.path import ReversePath, recipient_domain, reverse_path
from fakes.growth import is_linear

LEGIT, ATTACK = "legit.example", "attack.example"

PATHS = [
    (b"<>", ReversePath()),
    (b"", ReversePath()),
    (b"<a@legit.example>", ReversePath("a", Domain(LEGIT))),
    (b"a@LEGIT.example.", ReversePath("a", Domain(LEGIT))),
    (b'<"a@attack.example"@legit.example>', ReversePath('"a@attack.example"', Domain(LEGIT))),
    (b'<"a\\"@b"@legit.example>', ReversePath('"a\\"@b"', Domain(LEGIT))),
    (b"<(any@legit.example>", ReversePath("(any", Domain(LEGIT))),  # ESP-02
    (
        b"<any@legit.example(a.attack.example>",
        ReversePath("any", None, "character not allowed in a domain"),
    ),  # ESP-05
    (
        b"<any@legit.example'@any.attack.example>",
        ReversePath("any@legit.example'", Domain("any.attack.example")),
    ),  # ESP-06
    (
        b"<@legit.example,@any.example:'any@attack.example>",
        ReversePath("'any", Domain(ATTACK)),
    ),  # ESP-07
    (b'<"a b"@attack.example>', ReversePath('"a b"', Domain(ATTACK))),  # ARI-02
    (b"<a;b@attack.example>", ReversePath("a;b", Domain(ATTACK))),
    ("<用户@straße.example>".encode(), ReversePath("用户", Domain("xn--strae-oqa.example"))),
    (b"<\xff@legit.example>", ReversePath("\udcff", Domain(LEGIT))),
    (b"<root>", ReversePath("", None, "no domain")),
    (b"<@>", ReversePath("", None, "no mailbox")),
    (
        b"<@legit.example>",
        ReversePath("", Domain(LEGIT)),
    ),  # RFC 7208 4.3: postmaster stands in for the local part
    (b"@legit.example", ReversePath("", Domain(LEGIT))),
    (b"<@a.example:@b.example>", ReversePath("", Domain("b.example"))),
    (b"<@a.example:>", ReversePath("", None, "no domain")),
    (b"<@a.example:@>", ReversePath("", None, "no mailbox")),
    (b"<@a.example,@b.example>", ReversePath("", None, "no mailbox")),
    (b"<@@legit.example>", ReversePath("", None, "no mailbox")),
    (b"<@[192.0.2.1]>", ReversePath("", None, "address literal", "[192.0.2.1]")),
    (b'<"a@legit.example>', ReversePath("", None, "open quotation")),
    (b"<a@legit.example", ReversePath("", None, "unbalanced angle brackets")),
    (b"<a\x00b@legit.example>", ReversePath("", None, "control character")),
    (b"<a@[192.0.2.1]>", ReversePath("a", None, "address literal", "[192.0.2.1]")),
    (
        b"<a@legit.example attack.example>",
        ReversePath("a", None, "character not allowed in a domain"),
    ),
    (b"<" + b"a" * 5000 + b"@legit.example>", ReversePath("", None, "path too long")),
]


@pytest.mark.parametrize(("argument", "path"), PATHS)
def test_a_path_splits_at_its_last_unquoted_at(argument: bytes, path: ReversePath) -> None:
    """RFC 5321 4.1.2, appendix C; a domain is whole or malformed, never cut off."""
    assert reverse_path(argument) == path
    expected: Domain | Malformed | None = path.domain or (
        Malformed(path.malformed) if path.malformed else None
    )
    routed = {Malformed("source route"), Malformed("routing in the local part")}
    assert recipient_domain(argument) in {expected or Malformed("empty label"), *routed}


@pytest.mark.parametrize(
    ("argument", "domain"),
    [
        (b"<ceo@example.com>", "example.com"),
        (b"ceo@Example.COM", "example.com"),
        (b'<"a b"@example.com>', "example.com"),
        ("<ceo@müller.example>".encode(), "xn--mller-kva.example"),
        (b"<ceo>", None),
        (b"<postmaster>", None),
        (b"<ceo@[192.0.2.25]>", None),
        (b"<ceo@[IPv6:2001:db8::25]>", None),
        (b"<@example.com:ceo@other.example>", None),
        (b"<@other.example,@b.example:ceo@example.com>", None),
        (b"<ceo%other.example@example.com>", None),
        (b"<other.example!ceo@example.com>", None),
        (b'<"ceo@other.example"@example.com>', None),
        (b"<ceo@exam ple.com>", None),
        (b"<ceo@example..com>", None),
        (b"<ceo@\xff.example>", None),
        (b"<ceo@-example.com>", None),
        (b"<>", None),
        (b"<" + b"a" * 5000 + b"@example.com>", None),
        # POL-40
        (b"<c@other.example><ceo@example.com>", None),
        (b"<ceo>x<@example.com>", None),
        (b"<list:ceo;@example.com>", None),
        (b"<other.example:ceo@example.com>", None),
        (b"<ceo,x@example.com>", None),
        (b"<ceo\\@other.example@example.com>", None),
        (b"<ceo (x)@example.com>", None),
        (b"<ceo @example.com>", None),
        (b'<ceo"%"other.example@example.com>', None),
        (b"<@example.com>", None),
        (b"<ceo@192.0.2.25>", None),
        (b"<ceo@example.com> NOTIFY=NEVER", None),
        ("<ceo@exam\u00adple.com>".encode(), None),
        ("<ceo@example\u3002com>".encode(), None),
        (b'<"a,b (c); <d>"@example.com>', "example.com"),
        (b'<"a\\"b"@example.com.>', "example.com"),
        (b"<o'neil+tag=x/y@EXAMPLE.com>", "example.com"),
        ("<m\u00fcller@example.com>".encode(), "example.com"),
    ],
)
def test_the_domain_that_a_recipient_surely_has(argument: bytes, domain: str | None) -> None:
    """FWD-25: what an MTA may deliver elsewhere, or completes by itself, has none (RFC 5321
    4.1.1.3, appendix C; RFC 1123 5.2.16)."""
    recipient = recipient_domain(argument)
    assert (recipient.name if isinstance(recipient, Domain) else None) == domain


def test_only_the_null_path_is_null() -> None:
    """RFC 5321 4.5.5: a malformed sender is not the null sender."""
    assert reverse_path(b"<>").is_null
    assert not reverse_path(b"<root>").is_null
    assert not reverse_path(b"<@legit.example>").is_null
    assert not reverse_path(b"<a@legit.example>").is_null


@given(st.binary(max_size=120) | st.text(alphabet='<>"\\@:,a.é ', max_size=60).map(str.encode))
def test_any_octets_are_a_path(argument: bytes) -> None:
    """Null, a domain, or malformed: exactly one of them."""
    path = reverse_path(argument)
    assert path.is_null + bool(path.domain) + bool(path.malformed) == 1
    assert (
        not isinstance(recipient_domain(argument), Domain)
        or recipient_domain(argument) == path.domain
    )


@pytest.mark.parametrize("piece", [b'"', b'"\\', b"@", b"@a,", b"a", b"\\"])
def test_a_path_is_linear(piece: bytes) -> None:
    """Within its bound."""
    assert is_linear(reverse_path, lambda size: b"<" + (piece * size)[: size - 2] + b">", 2048)
