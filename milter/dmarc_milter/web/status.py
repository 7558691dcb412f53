"""What this host's configuration file says of policy and reports, read for each page: it may have
changed since the dashboard began."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dmarc_milter.config import DEFAULT_PATH, Config, ConfigError, load


class HostStatus(NamedTuple):
    """`mode` is enforce, monitor, or "" where the file cannot be read; `reports_off` is why no
    reports are sent, or ""; `config` is None where the file cannot be read,
    which is `path`."""

    mode: str
    text: str
    reports_off: str = ""
    config: Config | None = None
    path: Path = DEFAULT_PATH


def host_status(config: Config) -> HostStatus:
    """What a configuration means."""
    policy, options = config.policy, config.reporting
    missing = " and ".join(key for key in ("org_name", "email") if not getattr(options, key))
    off = f"[reporting] {missing} not set" if missing else ""
    if not policy.enforce:
        return HostStatus(
            "monitor",
            "nothing is refused or quarantined; what enforcement would have done is recorded",
            off,
            config,
        )
    done = {"reject": "refused", "quarantine": "quarantined"}[policy.reject_action]
    return HostStatus("enforce", f"mail that fails p=reject is {done}", off, config)


def read(path: Path) -> HostStatus:
    """Of a file. Never raises."""
    try:
        return host_status(load(path))._replace(path=path)
    except ConfigError as error:
        return HostStatus("", str(error), path=path)
