"""The end of a command: what Python would take apart piece by piece, the kernel takes at once. That
is a tenth of the time of a short command."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading


def leave(code: int) -> None:
    """End this process when everything that was begun is done and written. Returns where a thread
    still works or an output takes nothing: then Python ends in the usual way."""
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        return
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
