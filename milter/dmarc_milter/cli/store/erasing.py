"""`dmarc-milter store erase`."""

from __future__ import annotations

import argparse
import ipaddress
import re
import time
from contextlib import closing

from dmarc_milter.cli.main import EXIT_NO, EXIT_OK
from dmarc_milter.cli.terminal import domain_argument, print_json
from dmarc_milter.config import Config
from dmarc_milter.config.paths import spool_path
from dmarc_milter.core.stored import UnreadableFacts, decode
from dmarc_milter.ledger import tombstones
from dmarc_milter.ledger.connect import spool_of, store_of
from dmarc_milter.ledger.dialect import JOB
from dmarc_milter.ledger.erase import erase, prepare
from dmarc_milter.ledger.errors import SpoolError, StoreError
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.sent_log import SentLog, beside
from dmarc_milter.ledger.tombstones import Target, Tombstones

LITERAL = re.compile(r"^\[(?:IPv6:)?|\]$", re.IGNORECASE)
MAPPED = 96
"""Bits before the address of IPv4 in one of IPv6."""
NOT_HERE = """\
Not erased, since this program cannot reach it:
- backups of the store: after `store restore` what this host erased is erased again by itself
- other hosts' spools keep what the store has for {hours:g} hours; nothing of it is counted again.
  Run this there too to erase it at once
- mail that was sent, the copies that [reporting] copy_to keeps{copies}, the logs of the daemon and
  of the MTA"""


def erase_arguments(command: argparse.ArgumentParser) -> None:
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--domain",
        type=lambda text: Target("domain", domain_argument(text).name),
        dest="target",
        metavar="NAME",
        help="everything that names this domain or one below it",
    )
    what.add_argument(
        "--address",
        type=_address,
        dest="target",
        metavar="ADDRESS",
        help="what is kept of an address that reports go to",
    )
    what.add_argument(
        "--source",
        type=_source,
        dest="target",
        metavar="IP|NETWORK",
        help="everything that names this client address, or one of the network",
    )
    command.add_argument("--dry-run", action="store_true", help="only count what would be erased")


def _address(text: str) -> Target:
    """As it is kept: the domain in A-labels. It may stand in brackets, or behind `mailto:`."""
    bare = re.sub(r"^(?:mailto:)?<?(?:mailto:)?|>$", "", text.strip(), flags=re.IGNORECASE)
    local, _, host = bare.rpartition("@")
    if not (local and host):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address")
    return Target("address", f"{local}@{domain_argument(host).name}")


def _source(text: str) -> Target:
    """An address of IPv4 that is written as one of IPv6 (RFC 4291 2.5.5.2) is the same client, and
    so is an address literal (RFC 5321 4.1.3)."""
    try:
        network = ipaddress.ip_network(LITERAL.sub("", text.strip()))
        if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= MAPPED:
            mapped = network.network_address.ipv4_mapped
            if mapped is not None:
                network = ipaddress.ip_network((mapped, network.prefixlen - MAPPED))
        return Target("source", str(network))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address or network") from None


def run_erase(config: Config, arguments: argparse.Namespace) -> int:
    """0 when something was, or would be, erased; 1 when nothing is kept. Raises StoreError."""
    target, dry, now = arguments.target, arguments.dry_run, int(time.time())
    access = Access.CHANGE if dry else Access.CREATE
    with closing(store_of(config, access, JOB)) as store:
        store.ready()
        prepared = prepare(store, target, now)
        if not dry:
            _note(config, prepared.stone)
        counts = erase(store, prepared, dry=dry)
        counts |= _of_this_host(config, prepared.stones, dry=dry)
    found = {what: number for what, number in counts.items() if number}
    if arguments.json:
        print_json({"erased": found, "dry_run": dry})
    else:
        _print(found, dry=dry)
        copies = f" ({config.reporting.copy_to})" if config.reporting.copy_to else ""
        print(NOT_HERE.format(hours=config.store.keep_drained_hours, copies=copies))
    return EXIT_OK if found else EXIT_NO


def _note(config: Config, stone: tombstones.Tombstone) -> None:
    path = tombstones.beside(spool_path(config))
    try:
        tombstones.note(path, stone)
    except OSError as error:
        raise StoreError("refused", f"{path}: {error.strerror}") from None


def _of_this_host(config: Config, stones: Tombstones, *, dry: bool) -> dict[str, int]:
    """Its spool and its sent log."""

    def meant(facts: bytes) -> bool:
        try:
            return stones.hides_facts(decode(facts))
        except UnreadableFacts:
            return False

    def named(sample: bytes) -> bool:
        return stones.hides_sample(sample, 0)  # all that is there was recorded before

    counts: dict[str, int] = {}
    path = spool_path(config)
    try:
        if path.exists():
            with closing(spool_of(config, Access.CHANGE)) as spool:
                counts["spool rows"] = spool.erase(meant, named, dry=dry)
        counts["lines of the sent log"] = SentLog(beside(path)).erase(stones.hides_address, dry=dry)
    except SpoolError as error:
        raise StoreError("refused", str(error)) from None
    except OSError as error:
        raise StoreError("refused", f"{beside(path)}: {error.strerror}") from None
    return counts


def _print(found: dict[str, int], *, dry: bool) -> None:
    if not found:
        print("nothing is kept of it")
        return
    words = ", ".join(f"{number:,} {what}" for what, number in found.items())
    print(f"{'would be erased' if dry else 'erased'}: {words}")
