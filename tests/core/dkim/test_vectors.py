"""The examples that the RFCs print, verified to the octet."""

import hashlib
from datetime import UTC, datetime

from dmarc_milter.core.mail.message import BodyHash
from fakes.dns_zone import Zone
from fakes.received import checked, digests

RSA_1024 = (
    "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt"
    "IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi"
    "tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
)
TEST_1024 = (
    "v=DKIM1; k=rsa;"
    " p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bd"
    "OKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9Pz"
    "oxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
)
LETTER = """\
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
"""
RFC_8463 = """\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
"""
RFC_6376 = """\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
        4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
        KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
        4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
"""


def octets(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def test_the_example_of_rfc_8463_verifies_twice():
    """RFC 8463 A.3: one Ed25519 and one RSA signature on the same message."""
    zone = Zone(
        {
            "brisbane._domainkey.football.example.com": {
                "TXT": ["v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
            },
            "test._domainkey.football.example.com": {"TXT": [TEST_1024]},
        }
    )
    results = checked(octets(RFC_8463 + LETTER), zone, now=datetime(2018, 6, 11, tzinfo=UTC))
    assert [(str(each.status), each.algorithm, each.reason) for each in results] == [
        ("pass", "ed25519-sha256", ""),
        ("pass", "rsa-sha256", ""),
    ]


def test_the_example_of_rfc_6376_verifies():
    """RFC 6376 A.2, A.3: simple/simple, folded, with white space around the colons of h= and an i=
    below d=."""
    zone = Zone({"brisbane._domainkey.example.com": {"TXT": [RSA_1024]}})
    letter = LETTER.replace("game.  Are", "game. Are")  # erratum 3192
    (result,) = checked(octets(RFC_6376 + letter), zone)
    assert (str(result.status), result.identifier, result.reason) == (
        "pass",
        "football.example.com",
        "",
    )


def test_the_canonicalization_examples_of_rfc_6376():
    """RFC 6376 3.4.5: the body ` C \\r\\nD \\t E\\r\\n\\r\\n\\r\\n` both ways, and the hashes of an
    empty body (3.4.3, 3.4.4)."""
    simple, relaxed = BodyHash("simple", "sha256", None), BodyHash("relaxed", "sha256", None)
    found = digests(b" C \r\nD \t E\r\n\r\n\r\n", [simple, relaxed])
    assert found[relaxed].digest == hashlib.sha256(b" C\r\nD E\r\n").digest()
    assert found[simple].digest == hashlib.sha256(b" C \r\nD \t E\r\n").digest()
    empty = digests(b"", [simple, relaxed])
    assert empty[simple] == (hashlib.sha256(b"\r\n").digest(), 2)
    assert empty[relaxed] == (hashlib.sha256(b"").digest(), 0)
