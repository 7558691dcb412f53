"""Attaching and detaching edit the MTA's own file: what Postfix then reads is right, and undoing is
exact to the octet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.config.checks import socket_address
from dmarc_milter.mta import postfix, setup_edits, setup_lines
from dmarc_milter.mta.errors import AttachmentError

OURS = setup_lines.postfix_milter(socket_address("inet:8893@127.0.0.1"))
OTHER = setup_lines.postfix_milter(socket_address("unix:/run/dmarc-milter/milter.sock"))
FILTER = setup_lines.sendmail_mc(socket_address("inet:8893@127.0.0.1"))
MAIN = [
    "",
    "\n",
    "myhostname = mx.example",
    "myhostname = mx.example\n",
    "smtpd_milters=\n",
    "smtpd_milters =",
    "smtpd_milters = inet:127.0.0.1:8891\nmyhostname = mx.example\n",
    "smtpd_milters=inet:127.0.0.1:8891 unix:/run/x.sock",
    (
        "smtpd_milters =\n  # signing\n  inet:127.0.0.1:8891,\n  { unix:/run/x.sock,"
        " default_action=accept }\n\nmyhostname = mx.example\n"
    ),
    "smtpd_milters = inet:127.0.0.1:1\nsmtpd_milters = inet:127.0.0.1:2\n",
    "# smtpd_milters = inet:127.0.0.1:1\nnon_smtpd_milters = $smtpd_milters\n",
    "smtpd_forbid_bare_newline = normalize\n",
]


@pytest.mark.parametrize("text", MAIN)
def test_our_milter_is_first_and_the_others_stay(text: str) -> None:
    """Filters behind it see what it wrote; nobody else's setting changes."""
    before = postfix.Postfix(postfix.parse_main(text))
    after = postfix.Postfix(
        postfix.parse_main(setup_edits.attach_postfix(text, OURS, setup_lines.POSTFIX_STRICT))
    )
    assert [each.text for each in after.milters()] == [
        OURS,
        *(each.text for each in before.milters()),
    ]
    for name in before.settings:
        if name != "smtpd_milters":
            assert after.settings[name] == before.settings[name]
    assert "smtpd_forbid_bare_newline" in after.settings


@pytest.mark.parametrize("text", MAIN)
def test_attaching_twice_is_attaching_once_and_undoing_is_exact(text: str) -> None:
    """`--apply` is idempotent, follows a changed socket, and `--remove` gives the file back."""
    once = setup_edits.attach_postfix(text, OURS, setup_lines.POSTFIX_STRICT)
    assert setup_edits.is_attached(once, "#")
    assert setup_edits.attach_postfix(once, OURS, setup_lines.POSTFIX_STRICT) == once
    moved = setup_edits.attach_postfix(once, OTHER, setup_lines.POSTFIX_STRICT)
    assert moved == setup_edits.attach_postfix(text, OTHER, setup_lines.POSTFIX_STRICT)
    assert setup_edits.detach_postfix(once) == setup_edits.detach_postfix(moved) == text
    assert setup_edits.detach_postfix(text) == text


def test_what_the_administrator_changed_since_then_stays() -> None:
    """Undoing takes out what setup put in, and nothing else."""
    once = setup_edits.attach_postfix("smtpd_milters = inet:127.0.0.1:8891\n", OURS, ())
    changed = (
        once.replace("inet:127.0.0.1:8891", "inet:127.0.0.1:8891, inet:127.0.0.1:9999")
        + "myhostname = mx.example\n"
    )
    assert (
        setup_edits.detach_postfix(changed)
        == "smtpd_milters = inet:127.0.0.1:8891, inet:127.0.0.1:9999\nmyhostname = mx.example\n"
    )
    without = once.replace(OURS + ", ", "", 1)
    assert setup_edits.detach_postfix(without) == "smtpd_milters = inet:127.0.0.1:8891\n"


@pytest.mark.parametrize("comment", ["#", "dnl"])
def test_a_broken_block_is_left_to_the_administrator(comment: str) -> None:
    """Guessing where it ends could take out somebody else's lines."""
    text = f"{comment} {setup_edits.BEGIN}\nx = y\n"
    with pytest.raises(AttachmentError, match="by hand"):
        (setup_edits.detach_postfix if comment == "#" else setup_edits.detach_sendmail)(text)


@pytest.mark.parametrize(
    ("text", "next_line"),
    [
        (
            (
                "OSTYPE(`linux')dnl\nINPUT_MAIL_FILTER(`x',"
                " `S=inet:1@127.0.0.1')dnl\nMAILER(`smtp')dnl\n"
            ),
            "INPUT_MAIL_FILTER(`x'",
        ),
        (
            (
                "OSTYPE(`linux')dnl\ndnl"
                " INPUT_MAIL_FILTER(`x')\nMAILER(`local')dnl\nMAILER(`smtp')dnl\nLOCAL_CONFIG\n"
            ),
            "MAILER(`local')",
        ),
        ("OSTYPE(`linux')dnl\n", ""),
        ("OSTYPE(`linux')dnl", ""),
        ("", ""),
    ],
)
def test_the_sendmail_filter_is_first_and_undoing_is_exact(text: str, next_line: str) -> None:
    """cf/README: filters are asked in the order of their INPUT_MAIL_FILTER lines."""
    once = setup_edits.attach_sendmail(text, FILTER)
    assert FILTER + "\n" in once
    following = once.partition(setup_edits.END)[2].lstrip("\n")
    assert following.startswith(next_line)
    assert setup_edits.attach_sendmail(once, FILTER) == once
    assert setup_edits.detach_sendmail(once) == text


@given(
    st.text(alphabet="smtpd_ilr=#{}, \tab\n", max_size=60),
    st.text(alphabet="=#{}, \tabi:\n", max_size=60),
)
def test_any_file_comes_back_as_it_was(before: str, value: str) -> None:
    """Whatever stands in it."""
    text = f"{before}\nsmtpd_milters = {value}"
    assert (
        setup_edits.detach_postfix(
            setup_edits.attach_postfix(text, OURS, setup_lines.POSTFIX_STRICT)
        )
        == text
    )
    assert setup_edits.detach_sendmail(setup_edits.attach_sendmail(text, FILTER)) == text
