"""The one guard around what an MTA calls: an exception of ours never reaches it.

The exception is reported to the session, which answers the message as on_error says.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

Report = Callable[[str, BaseException], None]
"""Takes where it failed and the exception (Session.failed)."""
Subject = TypeVar("Subject")
P = ParamSpec("P")
R = TypeVar("R")
Event = Callable[Concatenate[Subject, P], R]


def guarded(
    report_of: Callable[[Subject], Report], default: R, where: str = ""
) -> Callable[[Event[Subject, P, R]], Event[Subject, P, R]]:
    """Decorates an event: an exception in it is reported, and the answer is `default`.

    `report_of` finds the session's report from the event's first argument. `where` is the event's
    name for the log, by default that of the function.
    """

    def decorate(event: Event[Subject, P, R]) -> Event[Subject, P, R]:
        name = where or event.__name__

        @functools.wraps(event)
        def safe(subject: Subject, /, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return event(subject, *args, **kwargs)
            except Exception as error:
                with contextlib.suppress(Exception):
                    report_of(subject)(name, error)
                return default

        return safe

    return decorate
