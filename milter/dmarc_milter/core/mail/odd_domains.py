"""The names that a piece of text may stand for when it is no plain name: cut at what is odd in it,
and with that left out.

`+ % & !` and others are legal in a dot-atom (RFC 5322 3.2.3), and a reader shows a domain with
them. No such name has a record of its own, but its organization has one, and the walk from the part
after the odd character reaches it (RFC 9989 4.10).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import MAX_NAME, MAX_U_LABEL, Domain

MAX_TEXT = 1024
"""Characters without white space that are looked at: four names of full length."""
MAX_LABELS = 1000
"""Labels that are examined for one field, odd ones only."""

ODD = re.compile(r"[^A-Za-z0-9._\-\x80-\U0010ffff]++")
NOT_ASCII = re.compile(r"[^\x00-\x7f]++")
NO_LETTER = re.compile(r"[^\w.\-]++")
A_COMMENT = re.compile(r"\([^()]*+\)")
# RFC 5321 4.1.3. Any other tag is no address literal that a reader knows.
IPV6_LITERAL = re.compile(r"\[IPv6:[0-9A-Fa-f:.]++(?=[\]>\s]|$)", re.IGNORECASE)


# What separates addresses.
SEPARATOR = re.compile(r"[,;:<>()\[\]]")


class TooMany(Exception):
    """More text, or more labels, than anyone's address has."""


class Names:
    """Finds names; `labels` is how many odd ones may still be examined, over all calls."""

    def __init__(self, labels: int = MAX_LABELS) -> None:
        self.labels = labels

    def of(self, texts: Iterable[str], *, before_at: bool = False) -> list[Domain]:
        """The names of one reading, given as its parts: the lowest of those at or below each other,
        in order of appearance.

        A name of one label is among them only where there is none of more labels, in the first part
        or at all, or as what stands before a character that is not ASCII. What is left without odd
        characters counts too, but `before_at`, where another address may begin, not over what
        separates addresses. Raises TooMany.
        """
        dotted: dict[Domain, None] = {}
        single: dict[Domain, None] = {}
        first: dict[Domain, None] = {}
        for number, part in enumerate(texts):
            if len(part) > MAX_TEXT:
                raise TooMany
            text = IPV6_LITERAL.sub("", part)
            for name in self._spelled(text):
                (dotted if "." in name.name else single)[name] = None
            if not _tidy(text):
                above = tuple(dotted)
                for name in self._joined(
                    SEPARATOR.split(text, maxsplit=1)[0] if before_at else text
                ):
                    if not any(map(name.is_at_or_below, above)):
                        (dotted if "." in name.name else single)[name] = None
            first.update(_before_not_ascii(text))
            if number == 0:
                head = _tidy(
                    SEPARATOR.split(text, maxsplit=1)[0]
                )  # where a reader stops at the next separator
                first.update(
                    single if not dotted else {head: None} if head and "." not in head.name else {}
                )
        return [*_lowest(list(dotted)), *first] if dotted else list(single | first)

    def _spelled(self, text: str) -> Iterator[Domain]:
        whole = _tidy(text)
        if whole:
            yield whole
            return
        spellings = [text] if text.isascii() else [text, unicodedata.normalize("NFKC", text)]
        for number, spelling in enumerate(dict.fromkeys(spellings)):
            whole = _tidy(spelling) if number else None
            if whole:
                yield whole
                return
            yield from self._pieces(spelling)

    def _pieces(self, text: str) -> Iterator[Domain]:
        """Each longest run of labels that are valid, between odd characters."""
        for piece in ODD.split(text):
            yield from self._runs(piece, _label)
            if not piece.isascii():
                yield from self._runs(piece, _any_label)
                parts = NO_LETTER.split(piece)
                for part in parts if len(parts) > 1 else ():
                    yield from self._runs(part, _label)

    def _runs(self, piece: str, valid: Callable[[str], str]) -> Iterator[Domain]:
        run: list[str] = []
        for label in filter(None, piece.split(".")):
            self.labels -= 1
            if self.labels < 0:
                raise TooMany
            if good := valid(label):
                run.append(good)
                continue
            # What of an odd label belongs to the name before it, and what to the name after it.
            parts = (
                [valid(part) for part in NOT_ASCII.split(label)]
                if not label.isascii()
                else ["", ""]
            )
            yield from _name([*run, parts[0]])
            run = [parts[-1]]
        yield from _name(run)

    def _joined(self, text: str) -> Iterator[Domain]:
        """What is left without the odd characters, and without those that are not ASCII; hyphens at
        the end of a label go too."""
        rest = ODD.sub("", A_COMMENT.sub("", unicodedata.normalize("NFKC", text)))
        labels = [
            label if label.lower().startswith("xn--") else label.strip("-")
            for label in rest.split(".")
        ]
        self.labels -= len(labels)
        if self.labels < 0:
            raise TooMany
        for spelling in dict.fromkeys((".".join(labels), NOT_ASCII.sub("", ".".join(labels)))):
            name = _tidy(spelling)
            if name:
                yield name
        if not rest.isascii():
            yield from (name for name in self._runs(rest, _any_label) if "." in name.name)


def _tidy(text: str) -> Domain | None:
    """The plain name that the text is, without the dots and hyphens too many that a tidy reader
    takes away."""
    name = domain.parse(".".join(filter(None, text.strip(".-").split("."))))
    return name if isinstance(name, Domain) and not _is_number(name) else None


def _label(label: str) -> str:
    """The label as a name has it, or nothing."""
    name = domain.parse(label)
    return name.name if isinstance(name, Domain) else ""


def _name(labels: list[str]) -> Iterator[Domain]:
    """The longest valid suffix of these labels, less the numbers at its end; an empty label counts
    as none."""
    labels = list(filter(None, labels))
    while labels and labels[-1].isdigit():
        labels.pop()
    name = ".".join(labels)
    while len(name) > MAX_NAME:
        name = name.partition(".")[2]
    if name:
        yield Domain(name)


def _any_label(label: str) -> str:
    """The label in Punycode whatever its letters are, as IDNA2003 and careless programs have it:
    there are domains of symbols."""
    if label.isascii():
        return _label(label)
    if any(unicodedata.category(char)[0] in "CZ" or char == "\ufffd" for char in label):
        return ""
    mapped = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).lower())
    if mapped.isascii() or len(mapped) > MAX_U_LABEL:  # Punycode takes quadratic time
        return _label(mapped)
    return _label("xn--" + mapped.encode("punycode").decode("ascii"))


def _before_not_ascii(text: str) -> dict[Domain, None]:
    """What a reader shows who stops at the first character that is not ASCII, where the text is no
    name."""
    match = NOT_ASCII.search(text)
    name = _tidy(text[: match.start()]) if match and not _tidy(text) else None
    return {name: None} if name else {}


def _is_number(name: Domain) -> bool:
    """An address, or a piece of one: no name in the DNS ends in digits alone (RFC 3696 2)."""
    return name.labels[-1].isdigit()


def _lowest(names: list[Domain]) -> list[Domain]:
    """Without those that have another one at or below them."""
    above = {
        ".".join(name.labels[count:]) for name in names for count in range(1, len(name.labels))
    }
    return [name for name in names if name.name not in above]
