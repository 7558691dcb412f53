"""Encoded words that each reader decodes in its own way, so that nobody can say whom they show."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator, Sequence

from dmarc_milter.core.mail import lenient
from dmarc_milter.core.mail.encoded_words import DECODERS, codec_of, unquoted

BROKEN_WORD = "broken encoded word"
"""Why a From field is malformed that hides somebody in one."""
MAX_WORDS = 100
"""Encoded words of one field that are examined; none that anyone writes has more."""
MAX_DECODED = 600
"""Characters of a field with a torn word in it that is still decoded in every way."""

# What may begin one for a reader who drops controls, quotes or comments first.
START = re.compile(r"=\?([^?]{0,100}+)\?[^?A-Za-z]{0,10}+[BbQq][^?A-Za-z]{0,10}+\?")
UNLIKE_ASCII = (
    "utf_7",
    "utf_16",
    "utf_32",
    "hz",
    "cp037",
    "cp273",
    "cp424",
    "cp500",
    "cp875",
    "cp1026",
    "cp1140",
)
NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]++")
# Charsets, or none, in which everyone sees ASCII as it stands. Some of the others that a reader may
# know are none at all: BASE64, HTML-ENTITIES and Quoted-Printable of PHP, unicode_escape of Python.
LIKE_ASCII = re.compile(
    r"(?:x?(?:cs)?(?:unknown.*|default|userdefined|none|null|ansi.*|(?:us)?ascii.*|[78]bit|binary"
    r"|charset|utf8.*|latin[0-9]+|l[0-9]+|iso8859.*|8859.*|win(?:dows)?[0-9]+.*"
    r"|cp(?:437|720|737|775|8[567][0-9]|932|936|949|950|125[0-9]|1361)|koi.*|mac.*|(?:cn)?gb.*"
    r"|(?:cn)?big5.*|euc.*|s(?:hift)?jis.*|mskanji|ks.*|korean|johab|uhc|tis.*|viscii.*|tcvn.*"
    r"|armscii.*|hproman.*))?"
)
# One that every reader finds and decodes alike: by the book (RFC 2047 2, 5 (3)), a few marks more.
CLEAN = re.compile(
    r"=\?(?P<charset>[A-Za-z0-9][\w.:+-]{0,40}+)(?:\*[A-Za-z0-9-]{0,40}+)?\?"
    r"(?:[Qq]\?(?P<Q>(?>(?:[!#-'*+\-./0-9A-Z^_`a-z{|}~]|=[0-9A-Fa-f]{2})*))"
    r"|[Bb]\?(?P<B>(?>(?:[A-Za-z0-9+/]{4})*)(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?+))\?=",
    re.ASCII,
)
WITH_SPECIALS = re.compile(
    rb'=\?([^?*\s]{1,60}+)(?:\*[^?]{0,40}+)?\?[Qq]\?(?=[^?<>@,;:()"\\]*+[<>@,;:()"\\])([^?]*+)\?='
)
# An @ in a charset, which a decoder swallows; a host that goes on in a word, or in its escapes.
HIDDEN_HOST = re.compile(
    r"=\?[^?@]{0,60}+@|@\s*+(?!_|=20)[^\s@?]*=\?"
    r"|\?[^\s@?]*+@(?![\s_]|=20)[!-<>A-~]*+(?:=[0-9A-Fa-f]|[^\s!-~])"
    r"|\?[Bb]\?[^?]*[^\x00-\x7f?]"  # of which some take the last eight bits for a letter
)


def hide_somebody(values: Sequence[bytes]) -> bool:
    """Whether an encoded word in a malformed From is broken, misspelt or has something stuck in it,
    and one of its words hides an @ or stands behind one; or is of a charset that some reader alone
    may know.

    Readers skip what is odd in a word, or stop at it, or leave the word as it is; some drop quotes
    and comments first. Which domain they show is then anyone's guess.
    """
    return any(_hides(value.decode("utf-8", "surrogateescape")) for value in values)


def _hides(text: str) -> bool:
    if "=" not in text or "?" not in text:
        return False
    forms = list(dict.fromkeys(lenient.stripped(text)))
    if of_strange_charset(forms):
        return True
    words = list(_words(text))
    if all(words) and len(words) <= MAX_WORDS:
        known = set(words)
        if not any(word not in known for form in forms for word in _words(form)):
            return False
    if len(text) > MAX_DECODED or any(_is_unlike_ascii(each) for each in _charsets(forms)):
        return True
    return any(map(_has_a_hidden_at, forms))


def of_strange_charset(texts: Iterable[str]) -> bool:
    """Whether one of these texts has an encoded word in which a reader may see anything."""
    return not all(map(_is_usual, _charsets(texts)))


def _charsets(texts: Iterable[str]) -> set[str]:
    return {start[1].partition("*")[0] for text in texts for start in START.finditer(text)}


def _is_unlike_ascii(charset: str) -> bool:
    """Whether an octet lost in the middle makes other letters of all the rest."""
    return codec_of(charset).startswith(UNLIKE_ASCII)


def _is_usual(charset: str) -> bool:
    plain = NOT_ALPHANUMERIC.sub("", charset.lower())
    return bool(codec_of(charset) or LIKE_ASCII.fullmatch(plain))


def holds_undecodable_specials(value: bytes) -> bool:
    """Whether what separates addresses stands bare in an encoded word whose octets are no text:
    Python leaves such a word as it is, and what stands in it ends a name."""
    return any(not _is_text(*word.groups()) for word in WITH_SPECIALS.finditer(value))


def _is_text(charset: bytes, text: bytes) -> bool:
    codec = codec_of(charset.decode("latin-1"))
    try:
        return not codec or bool(unquoted(text).decode(codec) or True)
    except UnicodeError:
        return False


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
