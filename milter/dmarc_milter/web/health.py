"""What the health page says beside the lights: findings about the configuration that need no
network, and what is known of spool and store, without counting their rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from dmarc_milter.checks import configuration, mail_server, remedies
from dmarc_milter.checks.rules import rules
from dmarc_milter.config import DEFAULT_PATH, Config
from dmarc_milter.config.instance import Instance, instance
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.gaps import losses
from dmarc_milter.ledger.store.schema import version
from dmarc_milter.ledger.store.status import LOSS_SHOWN, SpoolStatus, moved_aside, spool_status
from dmarc_milter.ledger.store.store import Store


def findings(config: Config, path: Path = DEFAULT_PATH) -> Iterator[Finding]:
    """Those of `config check` that ask neither the DNS nor a server, with remedies as they must be
    typed where the configuration at `path` is not the usual one. Reads files."""
    for one in _findings(config, instance(path)):
        yield one._replace(remedy=command(one.remedy, path))


def command(words: str, path: Path) -> str:
    """As it must be typed for the configuration at `path`."""
    return remedies.placed(words, config=None if instance(path).is_default else path)


def _findings(config: Config, of: Instance) -> Iterator[Finding]:
    suffixes, about = configuration.suffix_list(config)
    yield from (
        *configuration.mode(config),
        *rules(config, suffixes, datetime.now(UTC).date()),
        *about,
        *configuration.identity(config, suffixes),
        *configuration.exposed_listeners(config, of),
    )
    path = Path(config.authentication.sendmail_cf)
    if path.is_file():
        yield from (
            *mail_server.sendmail(config, path),
            *mail_server.rewriting(path, given=False),
        )


def spool_details(found: SpoolStatus) -> tuple[str, str]:
    """Name and value, for whoever looks closer."""
    waiting = "1 message" if found.waiting == 1 else f"{found.waiting:,} messages"
    return "Spool", f"{found.path}: {waiting} waiting, {found.octets:,} bytes"


def details(store: Store, spool: Path) -> Iterator[tuple[str, str]]:
    """Name and value. Never raises."""
    yield spool_details(spool_status(spool))
    database = store.database
    try:
        yield "Store", f"{database.name}: schema {version(database)}"
        with database.transaction(write=False) as transaction:
            for one in losses(transaction, int(time.time()) - LOSS_SHOWN):
                yield (
                    "Lost",
                    f"The store had lost messages of {one.host}: {one.again:,} were written again,"
                    f" {one.lost:,} are gone.",
                )
    except StoreError as error:
        yield "Store", f"{database.name}: {error}"
    aside = moved_aside(spool)
    if database.dialect == "sqlite":
        aside += moved_aside(Path(database.name))
    for file in aside:
        yield "Kept from an earlier damage", str(file)
