"""Submission of report mail: what each answer of the server means, encryption as configured, and
the signature."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import dkim
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from dmarc_milter.config import ConfigError, parse
from dmarc_milter.config.secrets import signing_key, smtp_password
from dmarc_milter.core.dkim.signing import SigningKey
from dmarc_milter.reporting.smtp import PER_CONNECTION, Later, Mailer, Refused, Sent, Submission
from fakes.smtp_sink import Sink, smtp_sink

MESSAGE = b"From: dmarc@mx.example\r\nTo: a@x.example\r\nSubject: s\r\n\r\n.dot\r\nend\r\n"


def submission(sink: Sink, **changes: object) -> Submission:
    return Submission("127.0.0.1", sink.port, timeout=3.0, helo="mx.example", **changes)  # type: ignore[arg-type]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with smtp_sink() as found:
        yield found


def send(sink: Sink, **changes: object) -> Sent | Later | Refused:
    mailer = Mailer(submission(sink, **changes))
    try:
        return mailer.send("dmarc@mx.example", "a@x.example", MESSAGE)
    finally:
        mailer.close()


def test_a_mail_arrives_as_it_was_written(sink: Sink) -> None:
    assert send(sink) == Sent("250 2.0.0 Ok: queued as SINK")
    assert sink.mails == [("dmarc@mx.example", "a@x.example", MESSAGE)]


@pytest.mark.parametrize(
    ("stage", "said", "outcome"),
    [
        ("connect", "554 no", Later("", True)),
        ("connect", "drop", Later("", True)),
        ("ehlo", "drop", Later("", True)),
        ("mail", "451 later", Later("451 later", True)),
        ("mail", "550 not you", Later("550 not you", True)),
        ("rcpt", "450 4.2.1 later", Later("450 4.2.1 later", False)),
        ("rcpt", "421 bye", Later("421 bye", True)),
        ("rcpt", "550 5.1.1 nobody", Refused("550 5.1.1 nobody", True, True)),
        ("rcpt", "554 5.7.1 relay denied", Refused("554 5.7.1 relay denied", False, True)),
        ("rcpt", "550 5.7.1 blocked", Refused("550 5.7.1 blocked", False, True)),
        ("rcpt", "552 5.2.2 full", Refused("552 5.2.2 full", False, True)),
        ("rcpt", "554 no", Refused("554 no", False, True)),
        ("rcpt", "550 nobody", Refused("550 nobody", True, True)),
        ("data", "550 spam", Refused("550 spam", False)),
        ("data", "451 later", Later("451 later", False)),
        ("data", "554 no", Refused("554 no", False)),
        ("end", "452 4.3.1 full", Later("452 4.3.1 full", False)),
        ("end", "552 5.3.4 too big", Refused("552 5.3.4 too big", False)),
        ("end", "drop", Later("", False)),
        ("end", "drop after", Later("", False)),
    ],
)
def test_each_answer_has_one_meaning(
    sink: Sink, stage: str, said: str, outcome: Later | Refused
) -> None:
    """4xx and 5xx told apart; what concerns us all is the server's state, not the recipient's
    answer."""
    sink.answer = lambda where, _: said if where == stage else ""
    found = send(sink)
    assert type(found) is type(outcome)
    assert found[1:] == outcome[1:]
    if outcome.reply:
        assert found.reply == outcome.reply


def test_replies_are_made_harmless(sink: Sink) -> None:
    """docs/attacks.md LOG-01: they end up in the log, the store and on terminals."""
    sink.answer = lambda stage, _: "550 \x1b[31m" + "x" * 900 + "\u202e" if stage == "rcpt" else ""
    found = send(sink)
    assert found.reply.isascii()
    assert found.reply.isprintable()
    assert len(found.reply) <= 400


def test_one_connection_carries_many_and_an_old_one_is_replaced(sink: Sink) -> None:
    """A server that tires of a connection costs nothing."""
    connections = []
    sink.answer = lambda stage, _: connections.append(1) or "" if stage == "connect" else ""  # type: ignore[func-returns-value]
    mailer = Mailer(submission(sink))
    for _ in range(PER_CONNECTION + 1):
        assert isinstance(mailer.send("d@mx.example", "a@x.example", MESSAGE), Sent)
    assert len(connections) == 2
    tired = ["421 too many"]
    sink.answer = lambda stage, _: tired.pop() if stage == "mail" and tired else ""
    assert isinstance(mailer.send("d@mx.example", "a@x.example", MESSAGE), Sent)
    mailer.close()


def test_a_server_that_never_ends_is_left(sink: Sink) -> None:
    """A mail has a deadline, not only each step."""
    release = threading.Event()
    sink.answer = lambda stage, _: str(release.wait(20) and "") if stage == "end" else ""
    mailer = Mailer(Submission("127.0.0.1", sink.port, timeout=15.0, deadline=0.3))
    found = mailer.send("d@mx.example", "a@x.example", MESSAGE)
    release.set()
    mailer.close()
    assert isinstance(found, Later)
    assert not found.server


# --- encryption -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed, for 127.0.0.1: certificate and key in one file."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sink.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "sink.pem"
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + pem)
    return path


@pytest.fixture
def tls_sink(certificate: Path) -> Iterator[Sink]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with smtp_sink(tls=context) as found:
        yield found


def test_verify_wants_a_certificate_that_is_valid(
    tls_sink: Sink, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = send(tls_sink, tls="verify")
    assert isinstance(found, Later)
    assert found.server
    assert "certificate" in found.reply
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert isinstance(send(tls_sink, tls="verify"), Sent)
    assert tls_sink.encrypted == [True]


def test_verify_without_starttls_sends_nothing(sink: Sink) -> None:
    found = send(sink, tls="verify")
    assert isinstance(found, Later)
    assert "STARTTLS" in found.reply
    assert not sink.mails


def test_opportunistic_takes_what_is_offered(sink: Sink, tls_sink: Sink) -> None:
    assert isinstance(send(tls_sink, tls="opportunistic"), Sent)
    assert isinstance(send(sink, tls="opportunistic"), Sent)
    assert (tls_sink.encrypted, sink.encrypted) == ([True], [False])


@pytest.mark.parametrize("tls", ["verify", "opportunistic"])
def test_at_port_465_tls_begins_with_the_first_byte(
    tls_sink: Sink, certificate: Path, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    """RFC 8314 3.3."""
    tls_sink.at_once = True
    monkeypatch.setattr("dmarc_milter.reporting.smtp.SUBMISSIONS", tls_sink.port)
    if tls == "verify":
        found = send(tls_sink, tls=tls, user="u", password="secret")
        assert isinstance(found, Later)
        assert "certificate" in found.reply
        assert tls_sink.logins == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert isinstance(send(tls_sink, tls=tls, user="u", password="secret"), Sent)
    assert (tls_sink.encrypted, tls_sink.logins) == ([True], ["u:secret"])


def test_a_password_never_goes_in_the_clear_by_accident(sink: Sink, tls_sink: Sink) -> None:
    found = send(sink, tls="opportunistic", user="u", password="secret")
    assert isinstance(found, Later)
    assert not sink.logins
    assert isinstance(send(tls_sink, tls="opportunistic", user="u", password="secret"), Sent)
    assert tls_sink.logins == ["u:secret"]


def test_a_wrong_password_is_the_servers_no_not_the_destinations(tls_sink: Sink) -> None:
    tls_sink.answer = lambda stage, _: "535 5.7.8 no" if stage == "auth" else ""
    found = send(tls_sink, tls="opportunistic", user="u", password="secret")
    assert isinstance(found, Later)
    assert found.server
    assert "secret" not in found.reply


def test_the_mail_is_signed(sink: Sink) -> None:
    """RFC 9990 3.5: the report mail must get an aligned pass itself."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    spki = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert isinstance(send(sink, key=SigningKey("mx.example", "sel", pem)), Sent)
    assert dkim.verify(
        sink.mails[0].message,
        dnsfunc=lambda name, timeout=5: b"v=DKIM1; p=" + b"".join(spki.split(b"\n")[1:-2]),
    )


# --- secrets --------------------------------------------------------------------------------------


def test_secrets_come_from_files_or_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert smtp_password(parse("")) == ""
    (tmp_path / "smtp-password").write_text("from systemd\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert smtp_password(parse("")) == "from systemd"
    (tmp_path / "p").write_text("from a file\n")
    assert (
        smtp_password(parse(f'[reporting]\nsmtp_password_file = "{tmp_path}/p"')) == "from a file"
    )
    with pytest.raises(ConfigError, match="cannot be read"):
        smtp_password(parse(f'[reporting]\nsmtp_password_file = "{tmp_path}/missing"'))


def test_a_key_that_cannot_sign_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("nonsense")
    text = (
        '[reporting]\ndkim_domain = "mx.example"\ndkim_selector = "s"\ndkim_key_file ='
        f' "{tmp_path}/k"'
    )
    with pytest.raises(ConfigError, match="dkim_key_file"):
        signing_key(parse(text))
    with pytest.raises(ConfigError, match="needs dkim_selector"):
        signing_key(parse(text.replace('"s"', '""')))
    assert signing_key(parse("")) is None


def test_the_signing_domain_may_be_written_in_any_form(tmp_path: Path) -> None:
    """As the reporting address may: d= is in A-labels (RFC 8616 5)."""
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (tmp_path / "k").write_bytes(pem)
    key = signing_key(
        parse(
            '[reporting]\ndkim_domain = "BÜCHER.example"\ndkim_selector = "s"\ndkim_key_file ='
            f' "{tmp_path}/k"'
        )
    )
    assert key is not None
    assert key.domain == "xn--bcher-kva.example"
