"""`dmarc-milter ready`: whether the daemon serves, for the health checks of containers."""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import socket

from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, add_config
from dmarc_milter.config import ConfigError, load
from dmarc_milter.config.checks import SocketAddress, metrics_address
from dmarc_milter.core.text import printable

TIMEOUT = 5.0
"""Seconds for connecting, and for each answer."""
MAX_ANSWER = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """One line, what /readyz says; 1 unless it is "ready". Raises ConfigError where there is no
    such page."""
    address = metrics_address(load(arguments.config).metrics.listen)
    if address is None:
        raise ConfigError('[metrics] listen is empty: set it, such as listen = "127.0.0.1:9893"')
    try:
        status, text = _ask(address)
    except (OSError, http.client.HTTPException) as error:
        status, text = 0, f"no answer from [metrics] listen: {error}"
    print(printable(text.strip()))
    return EXIT_OK if status == 200 else EXIT_NO


def _ask(address: SocketAddress) -> tuple[int, str]:
    """Status and text of /readyz. Raises OSError and HTTPException."""
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT)
    connection.sock = _connect(address)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER).decode("ascii", "replace")
    finally:
        connection.close()


def _connect(address: SocketAddress) -> socket.socket:
    if address.family != "unix":
        return socket.create_connection((_reachable(address.host), address.port), TIMEOUT)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(TIMEOUT)
        sock.connect(address.path)
    except OSError:
        sock.close()
        raise
    return sock


def _reachable(host: str) -> str:
    """Where one connects to what listens on every address: the same machine's loopback."""
    try:
        listening = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not listening.is_unspecified:
        return host
    return "127.0.0.1" if listening.version == 4 else "::1"
