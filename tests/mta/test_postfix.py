"""main.cf and master.cf as Postfix reads them (postconf(5), master(5))."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.config.checks import SocketAddress
from dmarc_milter.mta import postfix
from dmarc_milter.mta.errors import PostfixError

MAIN = """\
# smtpd_milters = inet:commented:1
compatibility_level = 3.6
queue_directory = /var/spool/postfix
mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128, hash:/etc/postfix/networks
smtpd_milters = inet:first.example:1
first = inet:127.0.0.1:8891
smtpd_milters =
  # a comment inside
  ${first},

  { unix:opendkim/opendkim.sock, default_action = accept }
non_smtpd_milters = $smtpd_milters
circle = $circle
"""

MASTER = """\
# service type  private unpriv  chroot  wakeup  maxproc command + args
smtp       inet  n       -       y       -       -       smtpd
127.0.0.1:10025 inet n   -       n       -       -       smtpd
  -o smtpd_milters=
  -o mynetworks=127.0.0.1
submission inet  n       -       -       -       -       smtpd
  -o { smtpd_milters = inet:127.0.0.1:8891 }
    -o milter_macro_daemon_name=ORIGINATING
pickup     unix  n       -       y       60      1       pickup
broken line
"""


@pytest.fixture
def example() -> postfix.Postfix:
    return postfix.Postfix(postfix.parse_main(MAIN), postfix.parse_master(MASTER))


def test_the_last_definition_counts_and_comments_do_not_end_a_line(
    example: postfix.Postfix,
) -> None:
    """postconf(5): a line that starts with white space continues, whatever comments stand
    between."""
    first, second = example.milters()
    assert first == postfix.MilterEntry("inet:127.0.0.1:8891", {}, "inet:127.0.0.1:8891")
    assert second.endpoint == "unix:opendkim/opendkim.sock"
    assert second.settings == {"default_action": "accept"}


def test_references_are_replaced_and_a_circle_ends(example: postfix.Postfix) -> None:
    """$name, ${name} and $(name)."""
    assert [each.endpoint for each in example.milters("non_smtpd_milters")] == [
        "inet:127.0.0.1:8891",
        "unix:opendkim/opendkim.sock",
    ]
    assert example.value("circle") == "$circle"
    assert example.value("queue_directory") == "/var/spool/postfix"
    assert postfix.Postfix({}).value("queue_directory") == "/var/spool/postfix"
    assert postfix.Postfix({"a": "x$(b)y", "b": "1"}).value("a") == "x1y"


def test_services_with_their_overrides_and_chroot(example: postfix.Postfix) -> None:
    """master(5): `-o` comes before main.cf; `-` in the chroot column follows the compatibility
    level."""
    smtp, back, submission = example.smtpd()
    assert [example.is_chrooted(each) for each in (smtp, back, submission)] == [True, False, False]
    assert example.milters(service=back) == ()
    assert [each.endpoint for each in example.milters(service=submission)] == [
        "inet:127.0.0.1:8891"
    ]
    assert len(example.milters(service=smtp)) == 2
    assert submission.options["milter_macro_daemon_name"] == "ORIGINATING"
    assert [each.is_submission for each in (smtp, back, submission)] == [False, False, True]
    assert postfix.Postfix({}, example.services).is_chrooted(submission)


def test_networks_are_read_and_tables_are_named(example: postfix.Postfix) -> None:
    """mynetworks holds networks, IPv6 ones in brackets, and tables, which we do not look into."""
    found, other = example.networks()
    assert found == tuple(
        map(ipaddress.ip_network, ("127.0.0.0/8", "::ffff:127.0.0.0/104", "::1/128"))
    )
    assert other == ("hash:/etc/postfix/networks",)
    assert postfix.Postfix({}).networks() == ((), ())


@pytest.mark.parametrize(
    ("endpoint", "chrooted", "expected"),
    [
        ("inet:127.0.0.1:8893", False, SocketAddress("inet", "127.0.0.1", 8893)),
        ("inet:[::1]:8893", False, SocketAddress("inet6", "::1", 8893)),
        ("unix:/run/x.sock", False, SocketAddress("unix", path="/run/x.sock")),
        ("unix:/run/x.sock", True, SocketAddress("unix", path="/queue/run/x.sock")),
        ("unix:x.sock", False, SocketAddress("unix", path="/queue/x.sock")),
        ("local:x.sock", True, SocketAddress("unix", path="/queue/x.sock")),
        ("inet:127.0.0.1:smtp", False, None),
        ("", False, None),
    ],
)
def test_an_endpoint_is_the_socket_that_postfix_opens(
    endpoint: str, chrooted: bool, expected: SocketAddress | None
) -> None:
    """postconf(5) smtpd_milters: under chroot an absolute path is below the queue directory, a
    relative one always."""
    assert postfix.address(endpoint, Path("/queue"), chrooted=chrooted) == expected


def test_both_files_are_read_and_a_missing_one_is_said(tmp_path: Path) -> None:
    """master.cf lies beside main.cf; without it there are no services."""
    main = tmp_path / "main.cf"
    with pytest.raises(PostfixError, match=r"main\.cf: cannot be read: No such file"):
        postfix.read(main)
    main.write_bytes(MAIN.encode() + b"odd = \xff\n")
    assert postfix.read(main).services == ()
    (tmp_path / "master.cf").write_text(MASTER)
    assert len(postfix.read(main).services) == 4


@given(st.text(alphabet="ab=${}()#-o \t\n,:", max_size=300))
def test_any_text_is_read_without_an_exception(text: str) -> None:
    """An administrator's slip is no traceback; each logical line is found again at its place."""
    for line in postfix.lines(text):
        written = text[line.start : line.end]
        assert line.text.split() == [
            word
            for row in written.split("\n")
            if not row.lstrip().startswith("#")
            for word in row.split()
        ]
    example = postfix.Postfix(postfix.parse_main(text), postfix.parse_master(text))
    for service in example.services:
        example.milters(service=service)
    assert isinstance(example.milters("a"), tuple)
    example.networks()
