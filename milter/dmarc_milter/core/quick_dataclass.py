"""Frozen dataclasses of which every message makes some: the type checker forbids changing them, and
nothing looks again while the program runs.

A frozen dataclass sets each field by a call and costs three times as much as another; 250 fields
are set for a message (docs/performance.md). Equality, hash, `replace` and the rest are those of a
frozen dataclass.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as quick_dataclass
else:

    def quick_dataclass(*, frozen: bool, **how: Any) -> Any:
        """`dataclasses.dataclass`, but that no assignment is refused at run time."""
        return dataclasses.dataclass(unsafe_hash=frozen, **how)


__all__ = ["quick_dataclass"]
