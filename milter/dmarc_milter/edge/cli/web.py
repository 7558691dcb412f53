"""`dmarc-milter web`: the read-only dashboard."""

from __future__ import annotations

import argparse
import errno
import ipaddress
import sys
from functools import partial
from pathlib import Path

from dmarc_milter.edge import guarded, init
from dmarc_milter.edge.cli import FINE, USAGE, add_config
from dmarc_milter.edge.cli.ledger import store_of
from dmarc_milter.edge.config import Config, ConfigError, load
from dmarc_milter.edge.config.places import spool_path
from dmarc_milter.edge.config.values import web_address

THREADS = 4
MIN_TOKEN = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--listen", metavar="ADDRESS:PORT", help="instead of [web] listen")


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is stopped. Raises ConfigError for an address that needs a token and has none."""
    code = init.stay_behind()
    if code is not None:
        return code
    import waitress

    from dmarc_milter.edge.web import WebOptions, create_app
    from dmarc_milter.edge.web.standing import read

    config = load(arguments.config)
    host, port = _address(arguments.listen or config.web.listen)
    standing = partial(read, arguments.config)
    app = create_app(WebOptions(lambda: store_of(config), spool_path(config), token(config, host), standing=standing))
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
    print(f"dmarc-milter: dashboard at http://{f'[{host}]' if ':' in host else host}:{server.effective_port}/", flush=True)
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


def token(config: Config, host: str) -> str:
    """What browsers must give; "" when only this machine can reach the address. Raises ConfigError."""
    path = config.web.token_file
    if not path:
        if ipaddress.ip_address(host).is_loopback:
            return ""
        raise ConfigError(
            f"[web] listen: {host} can be reached from elsewhere: set [web] token_file, or put a reverse proxy before 127.0.0.1"
        )
    try:
        found = guarded.read_bytes(Path(path)).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[web] token_file: {path} cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(found) < MIN_TOKEN:
        raise ConfigError(f"[web] token_file: {path} holds fewer than {MIN_TOKEN} characters; `openssl rand -hex 16` makes a token")
    return found
