"""mailcow, docker-mailserver, iRedMail, Mail-in-a-Box: what docs/how-to/distributions.md changes,
loaded into a private Postfix that is shaped like theirs, with mail sent through it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dmarc_milter.config.checks import socket_address
from dmarc_milter.config.schema_policy import Authentication
from dmarc_milter.mta import other_filters, postfix, setup_lines
from dmarc_milter.mta.postfix_review import review
from fakes.daemon import free_port
from fakes.dns_server import DnsServer
from live.attached import daemon
from live.distributions import ALL, Distribution
from live.place import REPOSITORY, private_folder, require_live
from live.postfix import SERVICES, Postfix
from live.scenarios import STRANGER, letter, our_fields, signed, zone

PAGE = (REPOSITORY / "docs/how-to/distributions.md").read_text()
DEFAULT = socket_address("inet:8893@127.0.0.1")
USUAL = {
    "PORT": "25",
    "SUBMISSION": "587",
    "BACK": "10025",
    "RSPAMD": "11332",
    "OPENDKIM": "8891",
    "OPENDMARC": "54321",
}
"""So that the review sees what an administrator sees."""


def placed(text: str, places: dict[str, str]) -> str:
    return re.sub(rf"\b(?:{'|'.join(places)})\b", lambda match: places[match[0]], text)


def with_options(master: str, options: str) -> str:
    """`postconf -P SERVICE/TYPE/NAME=VALUE`."""
    service, _, setting = options.rpartition("/inet/")
    return re.sub(rf"^({re.escape(service)} .*)$", rf"\1 -o {setting}", master, flags=re.MULTILINE)


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
def test_once_the_page_was_followed_nothing_is_left_to_mend(shape: Distribution) -> None:
    """No error and no warning about order, ports of re-injection or chroot."""
    master = with_options(shape.master, shape.options) if shape.options else shape.master
    files = postfix.Postfix(
        postfix.parse_main(placed(shape.main + shape.lines, USUAL)),
        postfix.parse_master(placed(master, USUAL)),
    )
    trust = Authentication(trusted_networks=["127.0.0.1/32"])
    found = review(files, DEFAULT, trust)
    assert [one.text for one in found if one.level in ("error", "warning")] == []
    kinds = {one.kind for one in other_filters.of_postfix(files, DEFAULT)}
    assert kinds >= set(shape.filters)


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
def test_the_page_shows_the_lines_that_are_tried(shape: Distribution) -> None:
    """Each has its part, with the one spelling of our element."""
    part = PAGE.split(f"\n## {shape.name}\n")[1].split("\n## ")[0]
    part = part.replace("inet:dmarc-milter:", "inet:127.0.0.1:")  # a container's name
    assert setup_lines.postfix_milter(DEFAULT) in part
    if shape.options:
        assert "smtpd_milters=" in part


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(zone()) as server:
        yield server


@pytest.fixture(scope="module")
def milter(dns: DnsServer) -> Iterator[str]:
    """The port of one daemon for all."""
    require_live()
    port = free_port()
    settings = {"authentication": {"trusted_networks": ["127.0.0.0/8"]}}
    with daemon(dns, f"inet:{port}@127.0.0.1", settings):
        yield str(port)


@contextmanager
def shaped(shape: Distribution, milter: str) -> Iterator[Postfix]:
    """A private Postfix with the distribution's files and the page's lines; to start it is to let
    it check them."""
    with private_folder("postfix") as folder:
        mta = Postfix(folder, milters="")
        places = {name: str(free_port()) for name in USUAL}
        places |= {"PORT": str(mta.port), "SUBMISSION": str(mta.submission_port), "8893": milter}
        master = with_options(shape.master, shape.options) if shape.options else shape.master
        (folder / "etc/master.cf").write_text(placed(master, places) + SERVICES)
        with (folder / "etc/main.cf").open("a") as main:
            main.write(placed(shape.main + shape.lines, places))
        try:
            mta.start()
            yield mta
        finally:
            mta.stop()


@pytest.mark.live
@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
def test_mail_is_judged_once_and_arrives_with_the_result(shape: Distribution, milter: str) -> None:
    """A genuine message arrives with one field of ours; one that the policy refuses does not."""
    with shaped(shape, milter) as mta:
        forged = letter("Boss <boss@reject.example>")
        reply = mta.send(forged, "victim", client=STRANGER, mail_from="x@forwarder.example")
        assert (reply.code, "reject.example" in reply.text) == (550, True), mta.log()[-3000:]
        message = signed(letter("Alice <alice@sender.example>"))
        reply = mta.send(message, "reader", client=STRANGER, mail_from="x@forwarder.example")
        assert reply.code == 250, mta.log()[-3000:]
        (field,) = our_fields(mta.delivered("reader"))
        assert "dmarc=pass" in field
