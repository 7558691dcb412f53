"""Encoded words (RFC 2047) decoded as leniently as anyone does, wherever they stand."""

from __future__ import annotations

import binascii
import re
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache
from itertools import pairwise

# encoded-word = "=?" charset ["*" language] "?" encoding "?" encoded-text "?=" RFC 2047 2, RFC 2231
# 5 The charset may be anything: a reader who knows none of that name still decodes the word.
ENCODED_WORD = re.compile(r"=\?([^?*]{0,60}+)(?:\*[^?]{0,40}+)?\?([BbQq])\?([^?]*+)\?=")
BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t\r\n]++(?==\?)")
START = re.compile(r"=\?([^?*]{0,60}+)(?:\*[^?]{0,40}+)?\?([BbQq])\?")
SPACE = re.compile(r"\s")
HEX = re.compile(r"[0-9A-Fa-f]{2}")
OPEN_END = re.compile(r"=\?[^?]{0,60}+\?[BbQq]\Z")
ESCAPED = re.compile(rb"=([0-9A-Fa-f]{2})")
# Some readers heal an escape that was folded.
ESCAPED_APART = re.compile(rb"=\s*+([0-9A-Fa-f]{2})")
NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]++")
URL_SAFE = bytes.maketrans(b"-_", b"+/")
# A Unicode charset within whatever else its name holds, as Roundcube finds it.
UNICODE = re.compile(r"u[a-z][a-z](7|8|16|32)(be|le)?")
NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]++")
# Charsets that readers know, all of them linear in Python. Of any other, and of Latin-1, one thinks
# that it is UTF-8, another Windows'.
CODECS = frozenset(
    ("utf_8", "utf_7", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le")
)
CODECS |= {
    "gb2312",
    "gbk",
    "gb18030",
    "hz",
    "big5",
    "big5hkscs",
    "cp950",
    "cp949",
    "euc_kr",
    "johab",
    "euc_jp",
    "shift_jis",
    "cp932",
}
CODECS |= {
    "iso2022_jp",
    "iso2022_jp_1",
    "iso2022_jp_2",
    "iso2022_jp_3",
    "iso2022_jp_ext",
    "iso2022_kr",
}
CODECS |= {
    "cp037",
    "cp273",
    "cp424",
    "cp500",
    "cp875",
    "cp1026",
    "cp1140",
    "koi8_r",
    "koi8_u",
    "mac_roman",
    "mac_cyrillic",
}
CODECS |= (
    {f"iso8859_{number}" for number in (*range(2, 12), *range(13, 17))}
    | {f"cp125{number}" for number in range(9)}
    | {"cp874"}
)
# Of which everyone decodes the ASCII in it alike.
ASCII_AND_MORE = ("ascii", "latin_1", "iso8859_1")
BIG_ENDIAN = {"utf_16": "utf_16_be", "utf_32": "utf_32_be"}
"""What some take for them where no mark says the order (RFC 2781 4.3)."""


def decode_words(text: str) -> str:
    """The text with its encoded words decoded, adjacent ones joined (RFC 2047 6.2)."""
    return decode_each(BETWEEN_WORDS.sub("", text))


def decode_each(text: str) -> str:
    """The text with its encoded words decoded, and the white space between them kept."""
    return ENCODED_WORD.sub(lambda match: _decoded(*match.groups()), text)


def decode_otherwise(text: str) -> str:
    """The same where a word leaves a choice: its charset is unknown, or the order of its octets
    unsaid."""
    return ENCODED_WORD.sub(
        lambda match: _decoded(*match.groups(), otherwise=True), BETWEEN_WORDS.sub("", text)
    )


def decode_open_words(text: str, *, whole: bool = False, to_the_end: bool = False) -> str:
    """The same for a reader who bears question marks in an encoded word, and one that never ends:
    it ends at the next white space."""
    text = BETWEEN_WORDS.sub("", text)
    kept: list[str] = []
    position, ended = 0, True
    for match in START.finditer(text):
        if match.start() < position:
            continue  # inside the last one
        end = text.find("?=", match.end()) if ended else -1
        ended = end >= 0
        if ended:
            after = end + 2
        else:
            space = None if to_the_end else SPACE.search(text, match.end())
            end = after = space.start() if space else len(text)
        kept += [
            text[position : match.start()],
            _decoded(match[1], match[2], text[match.end() : end], whole=whole),
        ]
        position = after
    return "".join([*kept, text[position:]])


def decode_whole_words(text: str) -> str:
    """The same for a reader of base64 who drops an incomplete last group of four."""
    return decode_open_words(text, whole=True)


def decode_to_the_end(text: str) -> str:
    """The same for a reader to whom one that never ends is all the rest."""
    return decode_open_words(text, to_the_end=True)


def before_what_swallows(text: str) -> str:
    """What stands before an encoded word that never ends and begins with an escape: to Python's
    email package that is all the rest, and the mailbox has no address but what stands before. ""
    where there is none.
    """
    end = text.rfind("?=")
    if end < 0 or not HEX.match(text, end + 2):
        return ""
    start = OPEN_END.search(text, max(end - 80, 0), end)
    return text[: start.start()] if start else ""


def decode_words_apart(text: str) -> str:
    """The same where one that never ends does so at the next one's start."""
    text = BETWEEN_WORDS.sub("", text)
    starts = [0, *(match.start() for match in START.finditer(text)), len(text)]
    return "".join(decode_open_words(text[start:end]) for start, end in pairwise(starts))


# Remembered, since it costs more than to decode a short word.
@lru_cache(maxsize=64)
def codec_of(charset: str) -> str:
    """Python's name of a charset that readers know; "" for another one."""
    name = normalize_encoding(charset.strip().lower())
    codec = aliases.get(name, name)
    return codec if codec in CODECS or codec in ASCII_AND_MORE else ""


def unquoted(octets: bytes, escaped: re.Pattern[bytes] = ESCAPED) -> bytes:
    """The octets of a Q-encoded text (RFC 2047 4.2)."""
    return escaped.sub(_octet, octets.replace(b"_", b" "))


def _decoded(
    charset: str, encoding: str, text: str, *, otherwise: bool = False, whole: bool = False
) -> str:
    """The text of one encoded word."""
    octets = text.encode("utf-8", "replace")
    octets = (
        unquoted(octets, ESCAPED_APART if otherwise else ESCAPED)
        if encoding in "qQ"
        else _base64(octets, whole=whole, several=otherwise)
    )
    codec = codec_of(charset) or _misspelt(charset)
    if codec in CODECS:
        if otherwise:
            return octets.decode(BIG_ENDIAN.get(codec, codec), "ignore")
        return octets.decode(codec, "replace")
    if otherwise:
        return octets.decode("cp1252", "replace")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")


@lru_cache(maxsize=64)
def _misspelt(charset: str) -> str:
    """The Unicode charset that a name may have meant; "" for another one."""
    match = UNICODE.search(NOT_ALPHANUMERIC.sub("", charset.lower()))
    if not match:
        return ""
    order = f"_{match[2]}" if match[2] and match[1] in ("16", "32") else ""
    return f"utf_{match[1]}{order}"


def _octet(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode("ascii"))


def _base64(octets: bytes, *, whole: bool, several: bool) -> bytes:
    """Over whatever else stands in it; the padding ends it. `whole`: without what is no group of
    four at its end, and over padding. `several`: padding ends one text, and the next begins.
    """
    if whole:
        return _bare_base64(octets[: len(octets) // 4 * 4])
    if several:
        return b"".join(map(_bare_base64, octets.translate(URL_SAFE).split(b"=")))
    return _bare_base64(octets.partition(b"=")[0])


def _bare_base64(octets: bytes) -> bytes:
    kept = NOT_BASE64.sub(b"", octets)
    return binascii.a2b_base64(kept[: len(kept) - (len(kept) % 4 == 1)] + b"==")


DECODERS = (
    decode_words,
    decode_each,
    decode_whole_words,
    decode_otherwise,
    decode_open_words,
    decode_to_the_end,
    decode_words_apart,
)
