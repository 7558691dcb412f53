"""What can go wrong with the spool and the store."""

from __future__ import annotations

from typing import Literal

Kind = Literal[
    "unreachable", "locked", "full", "refused", "corrupt", "foreign", "older", "newer", "absent",
    "io", "clock", "exists", "copy", "read_only", "denied",
]  # fmt: skip
"""`clock`: this host's clock is not to be believed; `foreign`: the file is somebody else's and was
left alone; `absent`: something is not installed; `exists`: a table is there that the schema does
not know; `read_only`: a server that takes no changes; `denied`: the account lacks a right;
`copy`: the file that was named for a backup cannot be one."""


class SpoolError(Exception):
    """The spool cannot be used now. `str()` is one line; `kind` says which of the ways it is."""

    def __init__(
        self,
        kind: Literal["corrupt", "locked", "full", "refused", "foreign", "older", "newer", "io"],
        text: str,
    ) -> None:
        super().__init__(text)
        self.kind = kind


class StoreError(Exception):
    """The store cannot be used now. `str()` is one line without secrets; `kind` says which of the
    ways it is. `lost`: the connection broke in the middle, and a new one may do."""

    def __init__(self, kind: Kind, text: str, *, lost: bool = False) -> None:
        super().__init__(" ".join(text.split()))
        self.kind = kind
        self.lost = lost


class Conflict(Exception):
    """Two transactions met and this one was undone: to be run again. `str()` is what the server
    says is there already (made by another host just now, or there to stay), or ""."""


def without_sql(error: Exception) -> str:
    """What a database says of an error in one line: its first sentence. Servers add the statement
    and the values of the row, which belong in no log."""
    diagnosis = getattr(error, "diag", None)
    return " ".join(str(getattr(diagnosis, "message_primary", None) or error).split())
