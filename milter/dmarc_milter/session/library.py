"""Which library speaks the milter protocol: pymilter where it is wanted, installed and able to
serve; else our own."""

from __future__ import annotations

from typing import Literal, NamedTuple

Library = Literal["pymilter", "native"]


class Choice(NamedTuple):
    """`because`: why it is not the one that was wanted, a plain line; empty if it is."""

    library: Library
    because: str = ""


def choose(wanted: Library) -> Choice:
    """What serves here. pymilter is imported only if it is wanted."""
    if wanted == "native":
        return Choice("native")
    try:
        from dmarc_milter.session import libmilter
    except ImportError:
        return Choice("native", "pymilter is not installed")
    try:
        libmilter.check_platform()
    except libmilter.CannotServe as error:
        return Choice("native", str(error))
    return Choice("pymilter")
