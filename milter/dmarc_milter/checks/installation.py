"""All findings about an installation, in the order in which one mends them; `config check`,
`doctor` and others choose from here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dmarc_milter.checks import configuration, limits, mail_server, service, storage
from dmarc_milter.checks.report_sender import report_sender
from dmarc_milter.checks.rules import rules
from dmarc_milter.config import Config
from dmarc_milter.config.instance import FIRST, Instance
from dmarc_milter.core.check_finding import Finding


def findings(
    config: Config,
    *,
    postfix: Path | None = None,
    sendmail: Path | None = None,
    offline: bool = False,
    of: Instance = FIRST,
) -> Iterator[Finding]:
    """What is right and wrong with it. `offline`: nothing is touched but the configuration and the
    files that are named; else DNS, store and socket are tried, and the configured sendmail.cf is
    read where none is named. `of`: whose configuration it is."""
    suffixes, about = configuration.suffix_list(config)
    yield from (
        *configuration.mode(config),
        *rules(config, suffixes, datetime.now(UTC).date()),
        *about,
        *configuration.identity(config, suffixes),
        *configuration.exposed_listeners(config, of),
    )
    sockets: list[Finding] = []
    if not offline:
        sockets = list(configuration.milter_socket(config, of))
        yield from (*sockets, *storage.ledger(config, of))
        if (allowed := limits.of_service(of.config)) is not None:
            yield from limits.findings(config, allowed, partial(service.drop_in, of=of))
        with closing(configuration.resolver_of(config)) as dns:
            resolver = dns.for_message(60.0, 1000)
            answering = list(configuration.dns(config))
            yield from answering
            if answering[-1].level == "ok":
                yield from report_sender(config, resolver, suffixes)
    servers: list[Finding] = []
    if postfix:
        servers += mail_server.postfix(config, postfix, of=of)
    if sendmail or not offline:
        path = sendmail or Path(config.authentication.sendmail_cf)
        servers += mail_server.sendmail(config, path)
        servers += mail_server.sendmail_filters(config, path, given=sendmail is not None, of=of)
        servers += mail_server.rewriting(path, given=sendmail is not None)
    yield from mail_server.agreed(servers, sockets, config)
