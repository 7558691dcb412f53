"""`dmarc-milter web`: the read-only dashboard."""

from __future__ import annotations

import argparse
import errno
import sys
from functools import partial

from dmarc_milter.cli.main import FINE, USAGE, add_config
from dmarc_milter.config import ConfigError, load
from dmarc_milter.config.checks import web_address
from dmarc_milter.config.secrets import spool_path, web_token
from dmarc_milter.ledger.connect import store_of
from dmarc_milter.process import init

THREADS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--listen", metavar="ADDRESS:PORT", help="instead of [web] listen")


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is stopped. Raises ConfigError for an address that needs a token and has
    none."""
    code = init.stay_behind()
    if code is not None:
        return code
    import waitress

    from dmarc_milter.web import WebOptions, create_app
    from dmarc_milter.web.status import read

    config = load(arguments.config)
    host, port = _address(arguments.listen or config.web.listen)
    standing = partial(read, arguments.config)
    app = create_app(
        WebOptions(
            lambda: store_of(config), spool_path(config), web_token(config, host), standing=standing
        )
    )
    try:
        server = waitress.create_server(
            app,
            host=host,
            port=port,
            threads=THREADS,
            ident=None,
            channel_timeout=30,
            max_request_header_size=16384,
            max_request_body_size=4096,
        )
    except OSError as error:
        who = f"; `ss -ltnp sport = :{port}` shows who" if error.errno == errno.EADDRINUSE else ""
        print(f"dmarc-milter: web: {host}:{port}: {error.strerror}{who}", file=sys.stderr)
        return USAGE
    print(
        "dmarc-milter: dashboard at"
        f" http://{f'[{host}]' if ':' in host else host}:{server.effective_port}/",
        flush=True,
    )
    try:
        server.run()
    finally:
        server.close()
    return FINE


def _address(text: str) -> tuple[str, int]:
    try:
        return web_address(text)
    except ValueError as error:
        raise ConfigError(f"[web] listen: {error}") from None
