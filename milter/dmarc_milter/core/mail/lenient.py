"""Every domain that some lenient reader could find in a From field that the strict one refuses."""

from __future__ import annotations

import html
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.encoded_words import (
    DECODERS,
    decode_open_words,
    decode_otherwise,
    decode_words,
)
from dmarc_milter.core.mail.odd_domains import A_COMMENT, Names, TooMany

MAX_READINGS = 100
"""Distinct texts after an @ that are looked at; a field with more of them has more domains than
anyone answers for."""
MAX_WORDS = 100
"""Words after one @."""
MAX_BROKEN = 16 * 1024
"""Bytes of a field up to which it is read in every way."""

# Where the address ends for whoever looks for its end: a bracket or separator at the end of a word,
# the next angle bracket. In the middle of a name, or before a dot, they are odd characters. Every
# repetition is bounded or ends at what it starts with.
BEFORE_A_WORD = r"(?:$|\s(?!\s*+\.))"
END = re.compile(
    rf"[>][,;)\]>]{{0,8}}+{BEFORE_A_WORD}|[,;]{{1,8}}+{BEFORE_A_WORD}|(?P<ANGLE>\s<(?!\.))"
)
END_BEFORE_AT = re.compile(rf"{END.pattern[:-1]}|<(?=[^<.][^<]*+$))")
GLUED_COMMENT = re.compile(r"(?<=\S)\(([^()]*+)\)")
# Where a reader stops at the latest, and one who skips white space.
SEPARATOR = re.compile(r'[,;:<>()\[\]"\s]')
SPECIAL = re.compile(r'[,;:<>()\[\]"]')
LINE_END = re.compile(r"[\r\n]")
NOT_ASCII = re.compile(r"[^\x00-\x7f]")
NOT_ASCII_END = re.compile(r"(?<=[\x00-\x7f])[^\x00-\x7f]++\Z")
# For a reader whose words end at a letter or digit of ASCII.
AFTER_THE_LAST_LETTER = re.compile(r"\A[^A-Za-z0-9_]++")
MAX_QUOTES = 6
"""Quotes behind an @ at which a name may end."""
LOCAL_PART = re.compile(r"[^,;:<>\"]*+$")

# Characters without a shape of their own (Unicode, Default_Ignorable_Code_Point): soft hyphen, zero
# width, direction, variation, tags.
IGNORABLE = {
    0xAD,
    0x34F,
    0x61C,
    0x115F,
    0x1160,
    0x17B4,
    0x17B5,
    *range(0x180B, 0x1810),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
}
IGNORABLE |= {
    *range(0x2060, 0x2070),
    0x3164,
    *range(0xFE00, 0xFE10),
    0xFEFF,
    0xFFA0,
    *range(0xFFF0, 0xFFF9),
    *range(0xE0000, 0xE1000),
}
IGNORABLE |= {*range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B)}
# What some readers drop without a word: those, controls, white space that is not ASCII, and the
# backslash of a quoted-pair.
WHITE = {0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
DROPPED = {*range(0x20), 0x7F, 0x5C, *WHITE, *IGNORABLE} - {9, 10, 13}
DROP = dict.fromkeys(DROPPED)
# Between the charsets of ISO-2022-JP and its like, and of terminals (ECMA-35 13.2.1).
ESCAPE_SEQUENCE = re.compile(r"\x1b[ -/]*+[0-~]")
# What compatibility mapping (UTS 46, NFKC) makes of at signs, full stops and the other specials of
# an address.
LOOK_ALIKE = dict(
    zip("＠﹫。．｡﹒＜﹤＞﹥，﹐；﹔：﹕＂（﹙）﹚＼﹨", '@@....<<>>,,;;::"(())\\\\', strict=True)
)
MAPPED = str.maketrans(LOOK_ALIKE)

# A character reference, with or without its semicolon as browsers read it, and a byte in a URL.
REFERENCE = re.compile(r"&(?:#0*+[0-9]{1,7}|#[xX]0*+[0-9A-Fa-f]{1,6}|[A-Za-z]{2,31}[0-9]{0,2});?")
LEADING_ZEROS = re.compile(r"(?<=#)([xX]?)0++(?=[0-9A-Fa-f])")
PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
# For readers who know no comment in a comment; one of them ends them with the line.
FLAT_COMMENTS = (re.compile(r"\([^)]*+\)?"), re.compile(r"\([^)\r]*+[)\r]?"))
COMMENT_PIECE = re.compile(r"[()]|\\.?|[^()\\]++", re.DOTALL)


def domains(
    values: Sequence[bytes],
    limit: int,
    *,
    decoded: bool = True,
    loose: bool = False,
    pause: Callable[[], None] = lambda: None,
) -> tuple[tuple[Domain, ...], bool]:
    """At most `limit` distinct domains in the order in which they are found, and whether there are
    more. Never raises.

    `decoded`: with those that show only once encoded words are decoded. `loose`: with those cut
    beside a letter that is not ASCII, although it is a name with that letter. `pause`: see
    author.author.
    """
    return _domains(_all_texts(values, decoded, pause), limit, loose=loose)


def _all_texts(values: Sequence[bytes], decoded: bool, pause: Callable[[], None]) -> Iterator[str]:
    for value in values:
        yield from _texts(value, decoded)
        pause()


def domains_of_text(texts: Iterable[str], limit: int) -> tuple[tuple[Domain, ...], bool]:
    """The same of addresses, or what some reader takes for one, that are text already."""
    return _domains(
        (tidied for text in texts for tidied in _tidied(text.translate(MAPPED), decoded=True)),
        limit,
    )


def _domains(
    texts: Iterable[str], limit: int, *, loose: bool = False
) -> tuple[tuple[Domain, ...], bool]:
    seen: dict[Domain, None] = {}
    known: set[NameParts] = set()
    names = Names()
    try:
        for text in texts:
            for parts, before_at in _after_each_at(text, loose):
                if parts in known:
                    continue
                known.add(parts)
                seen.update(dict.fromkeys(names.of(parts, before_at=before_at)))
                if len(seen) > limit or len(known) > MAX_READINGS:
                    raise TooMany
    except TooMany:
        return _dotted_first(seen)[:limit], True
    return _dotted_first(seen), False


def _dotted_first(names: Iterable[Domain]) -> tuple[Domain, ...]:
    """A single label says the least, so it is what is left out."""
    return tuple(sorted(names, key=lambda name: "." not in name.name))


def hides_an_at(value: bytes) -> bool:
    """Whether decoding the encoded words shows an @ that was not to be seen, before whatever
    name."""
    text = value.decode("latin-1")
    return "=?" in text and any(decode(text).count("@") != text.count("@") for decode in DECODERS)


def decodings(value: bytes) -> tuple[str, ...]:
    """UTF-8, or as Latin-1, cut at the first byte that is no text, and read without such
    bytes."""
    try:
        return (value.decode("utf-8"),)
    except UnicodeDecodeError:
        value = value.replace(b"\xc0\xae", b".")
    if len(value) > MAX_BROKEN:
        return (value.decode("latin-1"),)
    return (
        value.decode("latin-1"),
        value.decode("utf-8", "replace"),
        value.decode("utf-8", "ignore"),
    )


def unreferenced(text: str) -> str:
    """The text as a browser shows it that was not told to show it as it is."""
    return (
        REFERENCE.sub(lambda match: html.unescape(LEADING_ZEROS.sub(r"\1", match[0])), text)
        if "&" in text
        else text
    )


def _texts(value: bytes, decoded: bool) -> Iterator[str]:
    """The field as different readers see it."""
    for read in decodings(value):
        mapped = read.translate(MAPPED)
        yield from _tidied(mapped, decoded)
        if decoded and mapped != read and "=?" in read:  # a decoder may drop what others map
            yield from stripped(decode_otherwise(read).translate(MAPPED))


def _tidied(text: str, decoded: bool) -> Iterator[str]:
    """As it stands, and with its encoded words decoded; for a short one also as a reader of HTML or
    URLs sees it."""
    forms = [text]
    if decoded and "=?" in text:
        forms += (decode(text).translate(MAPPED) for decode in DECODERS)
        forms += _decoded_last(text)
    if len(text) <= MAX_BROKEN:
        forms += _unescaped(text, decoded)
    for form in dict.fromkeys(forms):
        yield from stripped(form)


def _decoded_last(text: str) -> Iterator[str]:
    """For a reader to whom quotes, comments and controls are gone before it looks for encoded
    words."""
    bare = without_comments(text.translate(DROP).replace('"', ""))
    if bare != text and "=?" in bare:
        yield decode_words(bare).translate(MAPPED)
        yield decode_otherwise(bare).translate(MAPPED)


def stripped(text: str) -> Iterator[str]:
    """As it stands, without oddities, without quotes and empty brackets too; each also without
    comments, however far these reach."""
    cleaned = text.translate(DROP)
    forms = [text, cleaned, cleaned.replace('"', "").replace("<>", "")]
    if "\x1b" in text:
        forms.append(ESCAPE_SEQUENCE.sub("", text).translate(DROP))
    for form in dict.fromkeys(forms):
        yield form
        if "(" in form:
            yield without_comments(form)
            yield from dict.fromkeys(comment.sub("", form) for comment in FLAT_COMMENTS)


def _unescaped(text: str, decoded: bool) -> Iterator[str]:
    """For a reader of HTML, and one of URLs, before or after encoded words."""
    shown = unreferenced(text)
    if shown != text:
        yield shown.translate(MAPPED)
    if PERCENT.search(shown):
        shown = urllib.parse.unquote(shown)
        yield shown.translate(MAPPED)
    if decoded and "=?" in shown:
        yield decode_open_words(decode_open_words(shown)).translate(MAPPED)


NameParts = tuple[str, ...]
"""What stands after one @, as the parts that may be the name."""


def _after_each_at(text: str, loose: bool) -> Iterator[tuple[NameParts, bool]]:
    """What stands after each @, and whether it may be the local part of another address as well."""
    known: set[str] = set()
    pieces = text.split("@")
    for number, piece in enumerate(pieces[1:], 2):
        before_at = number < len(pieces)
        if not piece or (before_at and piece in known):
            continue
        known.add(piece)
        after = A_COMMENT.sub("", piece)
        yield _name_parts(piece, after, before_at=before_at, loose=loose), before_at
        if loose:
            yield from _over_white_space(piece, after)


def _name_parts(piece: str, after: str, *, before_at: bool, loose: bool) -> NameParts:
    """The words up to the end of the address, those with a dot between them also as one, and all of
    these together, since readers skip white space. `after`: the piece without its comments."""
    end = (END_BEFORE_AT if before_at else END).search(after)
    rest = after[: end.start()] if end else after
    words = _address_words(rest, may_be_local=before_at and not end)
    beside = _beside_dots(words)
    # Before an angle bracket the rest names the next address.
    angle = end and end["ANGLE"]
    parts = (
        [*words[:1], *beside[:1], *after.split(maxsplit=1)[:1]]
        if angle
        else [*words, *beside, "".join(words[:2])]
    )
    if loose:
        first = SEPARATOR.split(piece.strip(), maxsplit=1)[0]
        parts = [first, *parts, *_loose_parts(piece, words)]
    beside_comments = _beside_comments(piece, len(rest)) if after != piece else ()
    return tuple(dict.fromkeys((*parts, "".join(words), *beside_comments)))


def _address_words(rest: str, *, may_be_local: bool) -> list[str]:
    """The words after an @, the last one without the local part of the next address. Raises TooMany
    beyond MAX_WORDS."""
    words = rest.split()
    if (
        may_be_local
        and len(words) > 1
        and "." not in words[-2][-1] + words[-1]
        and not rest[-1:].isspace()
    ):
        words[-1] = LOCAL_PART.sub("", words[-1])
    if len(words) > MAX_WORDS:
        raise TooMany
    return words


def _over_white_space(piece: str, after: str) -> Iterator[tuple[NameParts, bool]]:
    """For a reader who stops at nothing but a special character, a comment's too, or at a line's
    end: each by itself, since among longer names one of a single label counts for nothing.
    """
    for text in dict.fromkeys((after, piece)):
        name = SPECIAL.split(text, maxsplit=1)[0]
        for part in dict.fromkeys((name, LINE_END.split(name, maxsplit=1)[0])):
            words = part.split()
            if len(words) > 1:
                yield ("".join(words),), False


def _loose_parts(piece: str, words: list[str]) -> Iterator[str]:
    """What a reader takes who knows no end but white space, or one at a letter that is not
    ASCII."""
    for word in piece.split(maxsplit=1)[:1]:
        yield word
        if not word.isascii():
            yield word[: len(AFTER_THE_LAST_LETTER.sub("", word[::-1]))]
    if '"' in piece:
        yield from _over_quotes(piece)
    for word in words:
        if not word.isascii():
            yield NOT_ASCII.split(word)[0]
            yield NOT_ASCII_END.sub("", word)


def _over_quotes(piece: str) -> Iterator[str]:
    """What stands before each quote, and the whole, without the quotes and the white space: where a
    quotation ends a reader's name may end, or go on."""
    *ended, rest = piece.split('"', MAX_QUOTES)
    name = ""
    for part in ended:
        name += part.strip()
        yield name
    if len(ended) > 1:
        yield "".join((name + rest.replace('"', "")).split())


def _beside_comments(text: str, end: int) -> Iterator[str]:
    """What stands before the first comment and inside each up to the end, for a reader who knows of
    none.

    `end` counts without the comments. One after white space is left alone: nobody takes it for a
    part of the name.
    """
    removed = 0
    for number, match in enumerate(GLUED_COMMENT.finditer(text)):
        if match.start() - removed > end:
            return
        if number == 0:
            yield text[: match.start()].rsplit(maxsplit=1)[-1]
        yield from match[1].split()
        removed += len(match[0])


def _beside_dots(words: list[str]) -> list[str]:
    """The words, those with a dot between them as one (obs-domain, RFC 5322 4.4)."""
    joined: list[list[str]] = []
    for word in words:
        if joined and (word.startswith(".") or joined[-1][-1].endswith(".")):
            joined[-1].append(word)
        else:
            joined.append([word])
    return ["".join(parts) for parts in joined]


def without_comments(text: str) -> str:
    """The text outside comments; one that never ends takes the rest with it."""
    kept, depth = [], 0
    for match in COMMENT_PIECE.finditer(text):
        piece = match[0]
        if piece == "(":
            depth += 1
        elif piece == ")" and depth:
            depth -= 1
        elif not depth:
            kept.append(piece)
    return "".join(kept)
