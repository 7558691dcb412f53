"""Why an MTA's configuration cannot be read or edited."""

from __future__ import annotations


class PostfixError(Exception):
    """Its files cannot be read. `str()` is one line."""


class AttachmentError(Exception):
    """The text cannot be edited safely. `str()` is one line that says what to do by hand."""
