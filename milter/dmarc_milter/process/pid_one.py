"""The duty of a container's first process: it inherits every process whose parent has ended, and
must reap it.

The supervisor waits for its own children one by one (process/child.py), so a process of its own
does this and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_CHILD_SUBREAPER = 1, 2, 37
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def stay_behind() -> int | None:
    """Where orphans come to this process: fork, and return in the child, None. The parent passes
    signals on, reaps whatever ends, and returns the child's exit code when that has ended.
    Elsewhere nothing: None. Raises OSError where there is no process to be had."""
    if os.getpid() != 1 and not _is_subreaper():
        return None
    waited = {*PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _be_the_daemon(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    code = _reap(child)  # what ended before SIGCHLD was held back has told nobody
    while code is None:
        number = signal.sigwaitinfo(waited).si_signo
        if number == signal.SIGCHLD:
            code = _reap(child)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return code


def obey_signals() -> int | None:
    """For a command that is no daemon: the signals that end it do so from now on.

    An image's entry point holds them back while Python starts, and whoever is process 1 never gets
    one that it does not handle: as `stay_behind`, there. Raises OSError.
    """
    code = stay_behind() if os.getpid() == 1 else None
    if code is None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGHUP))
    return code


def _be_the_daemon(parent: int) -> None:
    """A group of its own: a terminal's Ctrl-C must not come twice, which would end sessions at
    once. It ends with its parent."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # gone before that was set
        os._exit(1)


def bond() -> tuple[int, int]:
    """The signal that this process gets when its parent ends, 0 for none, and that parent."""
    number = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    return number.value, os.getppid()


def bind_again(before: tuple[int, int]) -> None:
    """The kernel forgets that signal when a process changes its account (prctl(2))."""
    number, parent = before
    if number:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # gone before that was set
            os.kill(os.getpid(), number)


def _reap(child: int) -> int | None:
    """All that have ended; the child's exit code if it is among them, as a shell has it."""
    ended = None
    with contextlib.suppress(ChildProcessError):
        while True:
            done, status = os.waitpid(-1, os.WNOHANG)
            if not done:
                break
            if done == child:
                code = os.waitstatus_to_exitcode(status)
                ended = code if code >= 0 else 128 - code
    return ended


def _is_subreaper() -> bool:
    """Whether somebody made us the one that orphans come to (prctl(2))."""
    flag = ctypes.c_int(0)
    return ctypes.CDLL(None).prctl(
        PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0
    ) == 0 and bool(flag.value)
