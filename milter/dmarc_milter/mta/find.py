"""Which mail server a host has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dmarc_milter.mta.errors import AttachmentError

PROGRAMS = {
    "postfix": ("usr/sbin/postfix", "usr/lib/postfix/sbin/master"),
    "sendmail": ("usr/libexec/sendmail/sendmail", "usr/sbin/sendmail.sendmail"),
    "exim": ("usr/sbin/exim4", "usr/sbin/exim"),
}
FILES = {
    "postfix": ("etc/postfix/main.cf",),
    "sendmail": ("etc/mail/sendmail.mc", "etc/mail/sendmail.cf"),
}
"""A mail server that was removed may have left its files: they count where no program is there."""


EXIM = "Exim knows no milters: docs/how-to/exim.md says what to use instead"


def present(root: Path) -> list[str]:
    """Those of postfix, sendmail and exim that are here."""
    return _there(root, PROGRAMS) or _there(root, FILES)


def find(root: Path) -> str:
    """postfix or sendmail. Raises AttachmentError where that is not clear."""
    found = present(root)
    if found == ["exim"]:
        raise AttachmentError(EXIM)
    known = [name for name in found if name != "exim"]
    if len(known) != 1:
        what = f"{' and '.join(known)} are here" if known else "no Postfix or Sendmail was found"
        raise AttachmentError(f"{what}: name the mail server by --mta postfix or --mta sendmail")
    return known[0]


def _there(root: Path, names: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [mta for mta, paths in names.items() if any((root / path).exists() for path in paths)]
