"""The edit that moves an MTA to another socket, for files of any shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.config.checks import socket_address
from dmarc_milter.mta import postfix
from dmarc_milter.mta.earlier_socket import postfix_edit, still_named
from dmarc_milter.mta.errors import AttachmentError

OLD, NEW = socket_address("inet:8893@127.0.0.1"), socket_address("inet:8894@127.0.0.1")
OURS = ("inet:127.0.0.1:8893", "inet:localhost:8893", "{ inet:127.0.0.1:8893, x=y }")
OTHERS = ("inet:127.0.0.1:8891", "unix:x", "{ inet:127.0.0.1:18893,\n  a = b }", "$m")
BETWEEN = (", ", " ", ",\n  ", "\n\t", "\n# inet:127.0.0.1:8893\n  ", ",\n\n  ", " ,, ")


@given(
    st.lists(st.tuples(st.sampled_from(OURS + OTHERS), st.sampled_from(BETWEEN)), max_size=6),
    st.sampled_from(["", "\n", "\nx = y\n", "\n# end"]),
)
def test_ours_goes_and_everybody_else_stays_in_order(
    pieces: list[tuple[str, str]], end: str
) -> None:
    """Whatever separates them; the settings around and the comments are untouched."""
    value = "".join(text + between for text, between in pieces)
    text = f"m = unix:mine\nsmtpd_milters = {value}{end}"
    files = postfix.Postfix(postfix.parse_main(text))
    edit = postfix_edit(text, files, NEW, (OLD,))
    after = postfix.Postfix(postfix.parse_main(edit.after))
    first, *rest = [one.text for one in after.milters()]
    assert "127.0.0.1:8894" in first
    gone = {" ".join(one.split()) for one in OURS}
    assert rest == [one.text for one in files.milters() if one.text not in gone]
    assert len(edit.taken) == len(files.milters()) - len(rest)
    assert {
        name: one for name, one in files.settings.items() if name != "smtpd_milters"
    }.items() <= (after.settings.items())
    assert postfix_edit(edit.after, after, NEW, (OLD,)).after == edit.after


@given(
    st.text(alphabet="smtpd_ilr=#{}$:, \tab\n", max_size=60),
    st.text(alphabet="=#{}$?, \tai:8\n", max_size=60),
)
def test_any_file_is_edited_or_refused(before: str, value: str) -> None:
    """Afterwards nothing names the earlier socket."""
    text = f"{before}\nsmtpd_milters = {value}inet:127.0.0.1:8893\n"
    files = postfix.Postfix(postfix.parse_main(text))
    try:
        edit = postfix_edit(text, files, NEW, (OLD,))
    except AttachmentError:
        return
    assert still_named(postfix.Postfix(postfix.parse_main(edit.after)), (OLD,)) == ()
