"""The passwords, keys and tokens whose files the configuration names."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dmarc_milter.config import root_files
from dmarc_milter.config.checks import name
from dmarc_milter.config.errors import ConfigError
from dmarc_milter.config.schema import Config
from dmarc_milter.config.schema_reporting import Reporting, ReportingIdentity

if TYPE_CHECKING:
    from dmarc_milter.core.dkim.signing import SigningKey

MIN_TOKEN = 16
"""Characters of the dashboard's token."""


def store_password(config: Config) -> str:
    """From password_file, or systemd's credential store-password; "" leaves it to the URL and
    libpq. Raises ConfigError."""
    return _secret(config.store.password_file, "store-password", "the store's password")


def smtp_password(config: Config) -> str:
    """From smtp_password_file, or systemd's credential smtp-password. Raises ConfigError."""
    return _secret(
        config.reporting.smtp_password_file, "smtp-password", "the password for the SMTP server"
    )


def signing_key(config: Config) -> SigningKey | None:
    """The key that report mail is signed with; None: it is signed elsewhere, or not at all. Raises
    ConfigError for one that cannot sign."""
    return _signing_key(config.reporting, "[reporting]")


def identity_keys(config: Config) -> dict[str, SigningKey]:
    """The keys that identities have of their own, by the domain of their reporting address. Raises
    ConfigError."""
    found = {}
    for identity in config.reporting.identities:
        key = _signing_key(identity, f"[[reporting.identities]] of {identity.email}:")
        if key is not None:
            found[name(identity.email.rpartition("@")[2]).name] = key
    return found


def _signing_key(options: Reporting | ReportingIdentity, where: str) -> SigningKey | None:
    if not options.dkim_domain:
        return None
    # Here, not above: every command reads secrets, few sign, and the library takes long to load.
    from dmarc_milter.core.dkim.signing import SigningKey, sign

    if not options.dkim_selector:
        raise ConfigError(f"{where} dkim_domain needs dkim_selector, where its key is published")
    try:
        key = SigningKey(
            name(options.dkim_domain).name,
            name(options.dkim_selector).name,
            root_files.read_bytes(Path(options.dkim_key_file)),
        )
        sign(b"From: a@b.example\r\n\r\n", key)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} dkim_key_file {options.dkim_key_file!r}: {error}") from None
    return key


def _secret(file: str, credential: str, what: str) -> str:
    """The content of `file`, or of systemd's credential where no file is named; "" when there is
    neither."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if file:
        path = Path(file)
    elif folder and Path(folder, credential).exists():
        path = Path(folder, credential)
    else:
        return ""
    try:
        return root_files.read_bytes(path).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {what} cannot be read: {error}") from None


def web_token(config: Config, host: str) -> str:
    """What browsers must give; "" when only this machine can reach the address. Raises
    ConfigError."""
    path = config.web.token_file
    if not path:
        if ipaddress.ip_address(host).is_loopback:
            return ""
        raise ConfigError(
            f"[web] listen: {host} can be reached from elsewhere: set [web] token_file, or put a"
            " reverse proxy before 127.0.0.1"
        )
    try:
        found = root_files.read_bytes(Path(path)).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"[web] token_file: {path} cannot be read: {getattr(error, 'strerror', error)}"
        ) from None
    if len(found) < MIN_TOKEN:
        raise ConfigError(
            f"[web] token_file: {path} holds fewer than {MIN_TOKEN} characters; `openssl rand -hex"
            " 16` makes a token"
        )
    return found
