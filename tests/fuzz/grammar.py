"""From fields as forgers write them: a grammar whose every choice comes from one seed.

A value is a list of mailboxes, groups and odd elements. The attacker's own address stands in most
of them, the victim's is hidden in comments, quotations, encoded words, groups, routes and odd
places; then some octets are moved, lost, doubled or put in.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence

OWN = "attack.example"
"""The attacker's own domain: what it sends is authenticated."""
OWN_HOSTS = (OWN, OWN, OWN, OWN, "mail.attack.example", "ATTACK.example.", "evil.example")
VICTIMS = (
    "legit.example",
    "legit.example",
    "bank.example",
    "mail.legit.example",
    "LEGIT.Example",
    "a.b.bank.example",
    "b\xfccher.example",
    "\u2764.example",
)
BRAND = "brand"
"""A top-level domain that receives mail and has a policy of its own."""
TOPS = ("example", BRAND)
"""The top-level domains that there are."""
LOCALS = (
    "admin",
    "a",
    "service",
    "ceo.office",
    "x+tag",
    "_",
    "0",
    "o'neil",
    "=",
    "no-reply",
    "\u7528\u6237",
    "bounce-1=v=example.com",
)
NAMES = (
    "Bank",
    "Admin",
    "Doe, John",
    "J. Doe",
    "M\xfcller",
    "x:y",
    "via List",
    "Bank [US]",
    "a@b",
    "Legit\u00a0Inc.",
    "\u7528\u6237",
    "",
)
ODD = (
    *"+%&!=<>;:,[]\"'()\\/*{}|~^`?#$@. \t-_",
    *"\u2603\u0430\u0301\u200d\u00a0\u3000\u200b\u202e\u00ad\uff20\ufe6b\uff0e\u3002",
    *"\ufeff\u1680\u2028\x7f\x00\x0b\u0130\u212a\ufffd",
)
SPECIAL = (
    *'<>@,;:()"\\[]. \t',
    *(
        "\r\n ",
        '\\"',
        "\\@",
        "=?",
        "?=",
        "&lt;",
        "&#64;",
        "&quot;",
        "%40",
        "=40",
        "::",
        ",,",
        '""',
        "()",
    ),
)
STUCK = ("=", "()", "(x)", '""', " ", "= ", "\x01", "?", "*", "?=")
CHARSETS = (
    "utf-8",
    "UTF-8",
    "us-ascii",
    "iso-8859-1",
    "utf-7",
    "utf-16",
    "utf-8*en",
    "gb2312",
    "x-unknown",
    "iso-2022-jp",
)


class Grammar:
    """Values without end. The same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self) -> bytes:
        """One From field's value."""
        elements = [self.element() for _ in range(self.random.choice((1, 1, 1, 2, 2, 3)))]
        if not any(OWN in each for each in elements):
            elements.insert(self.random.randrange(len(elements) + 1), self.mailbox(self.own()))
        text = self.separator().join(elements)
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2, 4))):
            text = self.mutated(text)
        encoding = "latin-1" if self.chance(0.03) else "utf-8"
        return (self.random.choice((" ", "", " ")) + text).encode(encoding, "replace")

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, choices: Sequence[tuple[int, Callable[[], str]]]) -> str:
        weights, makers = zip(*choices, strict=True)
        return str(self.random.choices(makers, weights)[0]())

    def element(self) -> str:
        """One place between commas."""
        return self.pick(
            (
                (10, lambda: self.mailbox(self.own())),
                (3, lambda: self.mailbox(self.victim())),
                (4, lambda: self.mailbox(self.disguised())),
                (
                    3,
                    lambda: (
                        self.phrase()
                        + self.space()
                        + self.comment(self.any_address())
                        + self.space()
                        + self.mailbox(self.own())
                    ),
                ),
                (2, lambda: self.comment(self.any_address())),
                (3, self.group),
                (1, self.phrase),
                (2, lambda: self.word() + " " + self.word()),
                (1, lambda: self.own() + self.space() + self.angle(self.own())),
                (1, lambda: ""),
            )
        )

    def separator(self) -> str:
        return self.random.choice((", ", ", ", ",", ",\r\n ", ";", "; ", " ", ",,", ", ,", " , "))

    def mailbox(self, address: str) -> str:
        """name-addr or addr-spec, with comments where they may stand."""
        if self.chance(0.4):
            return self.commented(address)
        name = self.phrase()
        return (
            self.commented(name)
            + self.random.choice((" ", " ", "", "\r\n ", "\t", " \u00a0"))
            + self.angle(address)
            + self.tail()
        )

    def angle(self, address: str) -> str:
        inner = self.pick(
            (
                (12, lambda: address),
                (1, lambda: f"@{self.host()}:{address}"),
                (1, lambda: f" {address} "),
                (1, lambda: self.comment(self.any_address()) + address),
                (1, lambda: address + self.comment(self.any_address())),
                (1, lambda: "mailto:" + address),
                (1, lambda: f"{self.quoted(self.victim())} <{address}"),
                (1, lambda: ""),
            )
        )
        return f"<{inner}>"

    def tail(self) -> str:
        if self.chance(0.85):
            return ""
        return self.pick(
            (
                (2, lambda: self.comment(self.any_address())),
                (1, lambda: " " + self.word()),
                (1, lambda: self.angle(self.any_address())),
                (1, lambda: ">"),
            )
        )

    def commented(self, text: str) -> str:
        if self.chance(0.85):
            return text
        comment = self.comment(self.any_address()) + self.space()
        return comment + text if self.chance(0.5) else text + self.space() + comment

    def group(self) -> str:
        """RFC 6854; often empty, and then its name may be an address."""
        name = self.pick(
            (
                (3, self.phrase),
                (3, lambda: self.quoted(self.victim())),
                (1, self.victim),
                (1, lambda: "undisclosed"),
            )
        )
        members = self.separator().join(
            self.mailbox(self.any_address()) for _ in range(self.random.choice((0, 0, 1, 2)))
        )
        return (
            name
            + self.random.choice(("", " "))
            + ":"
            + members
            + self.random.choice((";", ";", ";", ""))
        )

    def phrase(self) -> str:
        """A display name."""
        return " ".join(self.word() for _ in range(self.random.choice((0, 1, 1, 2))))

    def word(self) -> str:
        return self.pick(
            (
                (4, lambda: self.random.choice(NAMES)),
                (
                    3,
                    lambda: self.quoted(
                        self.random.choice(
                            (self.victim(), self.random.choice(NAMES), self.nested())
                        )
                    ),
                ),
                (
                    3,
                    lambda: self.encoded(
                        self.random.choice(
                            (self.victim(), self.random.choice(NAMES), self.nested())
                        )
                    ),
                ),
                (1, self.victim),
                (1, lambda: self.random.choice(ODD)),
            )
        )

    def nested(self) -> str:
        """An address with what separates addresses around it."""
        left, right = self.random.choice(
            (
                ("<", ">"),
                (" <", "> "),
                ("", ","),
                (", ", ""),
                ('"', '"'),
                (";", ""),
                ("", " "),
                (">", "<"),
                ("x", ":"),
            )
        )
        return self.random.choice(("", "a", 'a\\"', 'a"')) + left + self.victim() + right

    def quoted(self, text: str) -> str:
        """A quoted-string; its end sometimes escaped, lost or doubled."""
        escaped = text.replace("\\", "\\\\").replace('"', '\\"') if self.chance(0.7) else text
        return (
            self.random.choice(('"', '"', '"', "'", '""'))
            + escaped
            + self.random.choice(('"', '"', '"', '"', '\\"', '"."', ' "'))
        )

    def comment(self, text: str) -> str:
        return self.pick(
            (
                (5, lambda: f"({text})"),
                (1, lambda: f"(a (b) {text})"),
                (1, lambda: f"(\\) {text})"),
                (1, lambda: f"({text}"),
                (1, lambda: f"(a) {text} (b)"),
                (1, lambda: "()"),
                (1, lambda: f'("{text})'),
            )
        )

    def encoded(self, text: str) -> str:
        """An encoded word (RFC 2047), whole or broken; sometimes the end of it belongs to the next
        one."""
        charset, octets = self.random.choice(CHARSETS), text.encode("utf-8")
        if charset.lower() in ("utf-16", "utf-7", "iso-2022-jp"):
            octets = text.encode(charset, "replace")
        if self.chance(0.5):
            payload = base64.b64encode(octets).decode().rstrip("=" if self.chance(0.2) else "")
            word = f"=?{charset}?{self.random.choice('BBb')}?{payload}?="
        else:
            sparing = self.chance(0.5)
            letters = (
                (
                    chr(each)
                    if (each < 128 and chr(each).isalnum())
                    or (sparing and chr(each) in '.,<>@:;"()')
                    else f"={each:02X}"
                )
                for each in octets
            )
            word = f"=?{charset}?{self.random.choice('QQq')}?{''.join(letters)}?="
        if self.chance(0.25):
            lost = self.random.choice(("?=", "=", "=?", "?", "?Q?", "?B?"))
            word = (
                word.replace(lost, self.random.choice(("", " ", "? =", "=20")), 1)
                if lost in word
                else word[:-2]
            )
        if self.chance(0.2):
            word += (
                self.random.choice((" ", "", "\r\n "))
                + f"=?{charset}?Q?{self.random.choice(('=2C', ',', '=22', '<', '=3C', '@'))}"
            )
        return self.torn(word) if self.chance(0.15) else word

    def torn(self, word: str) -> str:
        """An encoded word with something stuck in its charset or text, or in place of a piece."""
        for _ in range(self.random.choice((1, 1, 2))):
            place = self.random.randrange(2, max(3, len(word)))
            stuck = self.random.choice((*ODD, *SPECIAL, *STUCK))
            word = word[:place] + stuck + word[place + self.random.choice((0, 0, 1)) :]
        return word

    def any_address(self) -> str:
        return self.pick(((3, self.victim), (1, self.own)))

    def own(self) -> str:
        return self.local() + "@" + self.random.choice(OWN_HOSTS)

    def victim(self) -> str:
        name = self.random.choice(VICTIMS) if self.chance(0.97) else BRAND
        if self.chance(0.1):
            name = self.split(name)
        return self.random.choice(("admin", "admin", "ceo", "service")) + "@" + name

    def split(self, name: str) -> str:
        """Something in the middle of a name that some reader leaves out."""
        place = self.random.randrange(1, len(name))
        between = self.pick(
            (
                (3, lambda: self.random.choice((" ", "\t", "\r\n ", "  "))),
                (3, lambda: self.random.choice(ODD)),
                (1, lambda: "(x)"),
                (1, lambda: "=?utf-8?Q??="),
                (1, lambda: self.random.choice(("\\", '"', '""', "\x00", "&shy;", "<", ">"))),
            )
        )
        return name[:place] + between + name[place:]

    def disguised(self) -> str:
        """An address in which another one may be seen."""
        return self.pick(
            (
                (
                    4,
                    lambda: (
                        self.quoted(self.random.choice((self.victim(), self.nested()))) + "@" + OWN
                    ),
                ),
                (
                    4,
                    lambda: (
                        self.local()
                        + "@"
                        + self.label()
                        + self.random.choice(ODD)
                        + self.label()
                        + "."
                        + self.random.choice(VICTIMS)
                    ),
                ),
                (
                    3,
                    lambda: (
                        self.local()
                        + "@"
                        + self.label()
                        + self.random.choice(ODD)
                        + "."
                        + self.random.choice(VICTIMS)
                    ),
                ),
                (
                    3,
                    lambda: (
                        self.local()
                        + "@"
                        + OWN
                        + self.random.choice(ODD)
                        + self.label()
                        + "."
                        + self.random.choice(VICTIMS)
                    ),
                ),
                (
                    2,
                    lambda: (
                        self.local()
                        + "@"
                        + self.random.choice(VICTIMS)
                        + self.random.choice(ODD)
                        + self.label()
                        + "."
                        + OWN
                    ),
                ),
                (2, lambda: self.encoded(self.victim()) + self.random.choice(("", "@")) + OWN),
                (
                    2,
                    lambda: (
                        self.victim()
                        + self.random.choice(
                            ("@", ODD[0], " ", "\\@", "%", "!", ",", "<", ">", "(")
                        )
                        + OWN
                    ),
                ),
                (2, lambda: self.comment(self.victim()) + self.own()),
                (2, self.escaped_quotes),
                (
                    1,
                    lambda: (
                        self.local()
                        + self.comment(self.victim())
                        + "@"
                        + self.comment(self.random.choice(VICTIMS))
                        + OWN
                    ),
                ),
                (1, lambda: self.own() + self.comment("." + self.random.choice(VICTIMS))),
                (
                    1,
                    lambda: (
                        self.local()
                        + "@["
                        + self.random.choice(
                            ("192.0.2.1", self.random.choice(VICTIMS), "IPv6:2001:db8::1")
                        )
                        + "]"
                    ),
                ),
                (
                    1,
                    lambda: (
                        self.local()
                        + "@"
                        + self.random.choice(VICTIMS).replace(
                            ".", self.random.choice((" . ", ". ", "..", "(x).", "\uff0e"))
                        )
                    ),
                ),
            )
        )

    def escaped_quotes(self) -> str:
        """A quoted local part that some reader leaves at an escaped quote, before an address in
        angle brackets."""
        return (
            '"'
            + self.random.choice(("a", "", "a b"))
            + '\\"'
            + self.space()
            + "<"
            + self.victim()
            + ">"
            + self.space()
            + '"@'
            + OWN
        )

    def local(self) -> str:
        return self.pick(
            (
                (6, lambda: self.random.choice(LOCALS)),
                (
                    1,
                    lambda: self.quoted(
                        self.random.choice(("john smith", "x:y", "a@attack.example"))
                    ),
                ),
            )
        )

    def host(self) -> str:
        return self.random.choice((OWN, *VICTIMS))

    def label(self) -> str:
        return self.random.choice(("a", "x", "b", "customer", "my_host", ""))

    def space(self) -> str:
        return self.random.choice(("", " ", " ", "\r\n ", "\t"))

    def mutated(self, text: str) -> str:
        """One small thing changed: put in, lost, doubled, moved."""
        place = self.random.randrange(len(text) + 1)
        kind = self.random.randrange(6)
        if kind <= 2:
            return text[:place] + self.random.choice(SPECIAL if kind else ODD) + text[place:]
        end = place + self.random.choice((1, 1, 2, 8))
        if kind == 3:
            return text[:place] + text[end:]
        if kind == 4:
            return text[:end] + text[place:]
        other = self.random.randrange(len(text) + 1)
        piece, rest = text[place:end], text[:place] + text[end:]
        return rest[:other] + piece + rest[other:]
