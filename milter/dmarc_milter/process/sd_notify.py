"""systemd's readiness protocol (sd_notify(3)): datagrams to $NOTIFY_SOCKET. Does nothing without
systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Notifier:
    """Notifies the service manager that started us, if one did."""

    def __init__(self, address: str | None = None) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + path[1:] if path.startswith("@") else path
        usec = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = (
            int(usec) / 1e6 if usec.isascii() and usec.isdigit() and len(usec) < 16 else 0.0
        )

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={_line(status)}\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        # Type=notify-reload wants the time of the reload, so that an older READY=1 is not taken for
        # its end.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Keeps systemd's watchdog from acting."""
        if self.watchdog_seconds:
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.setblocking(False)
            sock.sendto(text.encode(), self._address)


def _line(text: str) -> str:
    return text.replace("\n", " ")
