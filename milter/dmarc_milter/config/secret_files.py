"""Secrets lie in files of their own, or in systemd credentials, and nobody else may read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
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


RUN_SECRETS = Path("/run/secrets")
"""Where container engines hand secrets in."""
MARKS = (Path("/run/.containerenv"), Path("/.dockerenv"))
"""Files that Podman and Docker put into every container."""
ENGINES = ("oci", "docker", "podman")
"""Values of `container`, which Podman and our own image set (systemd's container interface)."""


def is_open_to_all(path: Path, handed_in: Path = RUN_SECRETS) -> bool:
    """Whether any account of this machine may read the file. False for one that is not there, and
    for one that was handed into this container."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH) and not (
            _is_handed_in(path, handed_in) and in_container()
        )
    except OSError:
        return False


def in_container() -> bool:
    """Whether this process runs in an application's container, where no accounts but ours are, by
    the engine's file or what stands in our environment. Whoever could forge them is root, or
    starts us. A system's container (LXC, nspawn) is a machine like another: it has accounts.
    """
    return (
        any(mark.exists() for mark in MARKS)
        or "KUBERNETES_SERVICE_HOST" in os.environ
        or os.environ.get("container") in ENGINES  # noqa: SIM112 - as systemd spells it
    )


def _is_handed_in(path: Path, folder: Path) -> bool:
    """Whether an engine mounted the file, or a folder that holds it, below /run/secrets: Docker,
    Podman and Kubernetes do, with mode 0444 or 0644, which cannot be changed in there. It is open
    to this container alone.

    A file that somebody wrote below /run/secrets lies on the file system of /run itself, and is
    judged as any other. Also one that accounts in here could replace. Raises OSError.
    """
    real = Path(os.path.realpath(path))
    base = Path(os.path.realpath(folder))
    if not real.is_relative_to(base):
        return False
    found = real.stat()
    if found.st_dev == base.parent.stat().st_dev:
        return False
    if os.statvfs(real).f_flag & os.ST_RDONLY:
        return True
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def exposed(
    config: Config, files: Mapping[str, Path | None]
) -> Iterator[tuple[tuple[str, str], str]]:
    """(option, what is wrong) for each secret that everybody could read. `files`: where url and
    read_url of [store] stand, None for the environment, which only we and root can read."""
    for section, key in FILES:
        name = getattr(getattr(config, section), key)
        if name and is_open_to_all(Path(name)):
            yield (
                (section, key),
                f"{name} can be read by everybody: chmod 640 {name}, its group being the daemon's"
                f" (in a container: mount it below {RUN_SECRETS})",
            )
    for identity in config.reporting.identities:
        name = identity.dkim_key_file
        if name and is_open_to_all(Path(name)):
            yield ("reporting", "identities"), f"{name} can be read by everybody: chmod 640 {name}"
    for key, url in (("url", config.store.url), ("read_url", config.store.read_url)):
        file = files[key]
        if _holds_password(url) and file is not None and is_open_to_all(file):
            text = f"the URL holds a password and {file} can be read by everybody: chmod 640 {file}"
            yield ("store", key), f"{text}, or use password_file"


def _holds_password(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(url.password) or "password" in parse_qs(url.query)
    except ValueError:
        return False
