"""Ctrl-C: 130 and no traceback, whenever it comes (docs/reference/exit-codes.md).

Imported before everything else, so it imports nothing that takes time.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without the enumerations
import os
import sys

INTERRUPTED = 130
"""As a shell has it: 128 and SIGINT."""
SIGINT = 2


def leave_at_once() -> None:
    """Ctrl-C ends this process from now on: where modules are imported, and at the end. Nothing
    where the caller ignores SIGINT, as `nohup` and background jobs do, or takes it itself."""
    if _signal.getsignal(SIGINT) is _signal.default_int_handler:
        _signal.signal(SIGINT, _leave)
    # The package's launcher holds it back while the interpreter starts: now it comes.
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (SIGINT,))


def raise_again() -> None:
    """Ctrl-C raises KeyboardInterrupt from now on, so that a command that runs can put away what it
    holds. Nothing unless `leave_at_once` came first."""
    if _signal.getsignal(SIGINT) is _leave:
        _signal.signal(SIGINT, _signal.default_int_handler)
        sys.unraisablehook = _unraisable


def _leave(_number: int, _frame: object) -> None:
    os._exit(INTERRUPTED)


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Where nobody can catch it, in a destructor or in a callback of C, Ctrl-C ends the process."""
    if unraisable.exc_type is KeyboardInterrupt:
        os._exit(INTERRUPTED)
    sys.__unraisablehook__(unraisable)
