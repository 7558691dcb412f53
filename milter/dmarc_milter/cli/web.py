"""`dmarc-milter web`: the read-only dashboard."""

from __future__ import annotations

import argparse
import errno
import logging
from functools import partial
from typing import Any

from dmarc_milter.cli.interrupts import INTERRUPTED
from dmarc_milter.cli.main import EXIT_USAGE, add_config
from dmarc_milter.config import ConfigError, load
from dmarc_milter.config.checks import web_address
from dmarc_milter.config.paths import spool_path
from dmarc_milter.config.secrets import web_token
from dmarc_milter.ledger.connect import reading_store
from dmarc_milter.process import pid_one
from dmarc_milter.telemetry.log import complain, open_log

THREADS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--listen", metavar="ADDRESS:PORT", help="instead of [web] listen")


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is stopped. Raises ConfigError for an address that needs a token and has
    none."""
    code = pid_one.stay_behind()
    if code is not None:
        return code
    from dmarc_milter.web import WebOptions, create_app
    from dmarc_milter.web.status import read

    config = load(arguments.config)
    log = open_log(config, ours=logging.WARNING)
    host, port = _address(arguments.listen or config.web.listen)
    options = WebOptions(
        lambda: reading_store(config),
        spool_path(config),
        web_token(config, host),
        status=partial(read, arguments.config),
    )
    try:
        server = _server(create_app(options), host, port)
    except OSError as error:
        who = f"; `ss -ltnp sport = :{port}` shows who" if error.errno == errno.EADDRINUSE else ""
        complain(f"web: {host}:{port}: {error.strerror}{who}")
        return EXIT_USAGE
    shown = f"[{host}]" if ":" in host else host
    where = f"http://{shown}:{server.effective_port}/"
    if log.events_only:
        log.info("dashboard", address=where)
    else:
        print(f"dmarc-milter: dashboard at {where}", flush=True)
    try:
        server.run()
    finally:
        server.close()
    return INTERRUPTED  # waitress ends by Ctrl-C alone, and takes it for itself


def _server(app: object, host: str, port: int) -> Any:
    import waitress

    return waitress.create_server(
        app,
        host=host,
        port=port,
        threads=THREADS,
        ident=None,
        channel_timeout=30,
        max_request_header_size=16384,
        max_request_body_size=4096,
    )


def _address(text: str) -> tuple[str, int]:
    try:
        return web_address(text)
    except ValueError as error:
        raise ConfigError(f"[web] listen: {error}") from None
