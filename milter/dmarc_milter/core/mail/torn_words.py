"""Encoded words that each reader decodes in its own way, so that nobody can say whom they show."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence

from dmarc_milter.core.mail import lenient
from dmarc_milter.core.mail.encoded_words import DECODERS, codec_of, unquoted

BROKEN_WORD = "broken encoded word"
"""Why a From field is malformed that hides somebody in one."""
MAX_WORDS = 100
"""Encoded words of one field that are examined; none that anyone writes has more."""
MAX_DECODED = 600
"""Characters of a field with a torn word in it that is still decoded in every way."""

# What may begin one for a reader who drops controls, quotes or comments first.
START = re.compile(r"=\?[^?]{0,100}+\?[^?A-Za-z]{0,10}+[BbQq][^?A-Za-z]{0,10}+\?")
# One that every reader finds and decodes alike: by the book (RFC 2047 2, 5 (3)), a few marks more.
CLEAN = re.compile(
    r"=\?(?P<charset>[A-Za-z0-9][\w.:+-]{0,40}+)(?:\*[A-Za-z0-9-]{0,40}+)?\?"
    r"(?:[Qq]\?(?P<Q>(?:[!#-'*+\-./0-9A-Z^_`a-z{|}~]|=[0-9A-Fa-f]{2})*+)"
    r"|[Bb]\?(?P<B>(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?+))\?=",
    re.ASCII,
)
# An @ in a charset, which a decoder swallows; a host that goes on in a word, or in its escapes.
HIDDEN_HOST = re.compile(
    r"=\?[^?@]{0,60}+@|@\s*+(?!_|=20)[^\s@?]*=\?"
    r"|\?[^\s@?]*+@(?![\s_]|=20)[!-<>A-~]*+(?:=[0-9A-Fa-f]|[^\s!-~])"
)


def hide_somebody(values: Sequence[bytes]) -> bool:
    """Whether an encoded word in a malformed From is broken, misspelt or has something stuck in it,
    and one of its words hides an @ or stands behind one.

    Readers skip what is odd in a word, or stop at it, or leave the word as it is; some drop quotes
    and comments first. Which domain they show is then anyone's guess.
    """
    return any(_hides(value.decode("utf-8", "surrogateescape")) for value in values)


def _hides(text: str) -> bool:
    if "=" not in text or "?" not in text:
        return False
    forms = list(dict.fromkeys(lenient.stripped(text)))
    words = list(_words(text))
    if all(words) and len(words) <= MAX_WORDS:
        known = set(words)
        if not any(word not in known for form in forms for word in _words(form)):
            return False
    return len(text) > MAX_DECODED or any(map(_has_a_hidden_at, forms))


def _words(text: str) -> Iterator[str]:
    """The encoded words; "" for one that readers decode in several ways, and then no more."""
    for start in START.finditer(text):
        word = CLEAN.match(text, start.start())
        if not word or not _decodes(word):
            yield ""
            return
        yield word[0]


def _decodes(word: re.Match[str]) -> bool:
    """Whether it is text in a charset that readers know."""
    codec = codec_of(word["charset"])
    try:
        octets = (
            unquoted(word["Q"].encode("ascii"))
            if word["B"] is None
            else binascii.a2b_base64(word["B"])
        )
        return bool(codec) and octets.decode(codec).isprintable()
    except (UnicodeError, binascii.Error):
        return False


def _has_a_hidden_at(text: str) -> bool:
    count = text.count("@")
    return bool(HIDDEN_HOST.search(text)) or any(
        decode(text).count("@") > count for decode in DECODERS
    )
