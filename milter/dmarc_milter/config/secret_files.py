"""Secrets lie in files of their own, or in systemd credentials, and nobody else may read them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from dmarc_milter.config.schema import Config

FILES = (
    ("store", "password_file"),
    ("reporting", "smtp_password_file"),
    ("reporting", "dkim_key_file"),
    ("web", "token_file"),
)
"""Options that name a file with a secret."""


def is_open_to_all(path: Path) -> bool:
    """Whether any account of this machine may read the file. False for one that is not there."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def exposed(config: Config, file: Path) -> Iterator[tuple[tuple[str, str], str]]:
    """(option, what is wrong) for each secret that everybody could read; `file` is the
    configuration itself."""
    for section, key in FILES:
        name = getattr(getattr(config, section), key)
        if name and is_open_to_all(Path(name)):
            yield (
                (section, key),
                f"{name} can be read by everybody: chmod 640 {name}, its group being the daemon's",
            )
    for identity in config.reporting.identities:
        name = identity.dkim_key_file
        if name and is_open_to_all(Path(name)):
            yield ("reporting", "identities"), f"{name} can be read by everybody: chmod 640 {name}"
    for key, url in (("url", config.store.url), ("read_url", config.store.read_url)):
        if _holds_password(url) and is_open_to_all(file):
            text = f"the URL holds a password and {file} can be read by everybody: chmod 640 {file}"
            yield ("store", key), f"{text}, or use password_file"


def _holds_password(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(url.password) or "password" in parse_qs(url.query)
    except ValueError:
        return False
