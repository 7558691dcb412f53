"""The floor: an empty pymilter that wants every event and answers none before the end, as cheap as
libmilter under Python gets.

    python -m bench.empty unix:/tmp/empty.sock 2

Two worker processes share the socket, like the daemon's.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from Milter import milter

NO_REPLY = (
    milter.P_NR_CONN
    | milter.P_NR_HELO
    | milter.P_NR_MAIL
    | milter.P_NR_RCPT
    | milter.P_NR_HDR
    | milter.P_NR_EOH
)
NOT_WANTED = milter.P_NODATA | milter.P_NOUNKNOWN


def negotiate(_ctx: object, options: list[int]) -> int:
    """No replies but the body's and the last one; actions as the daemon's."""
    options[:] = [
        options[0] & (milter.ADDHDRS | milter.CHGHDRS | milter.QUARANTINE),
        options[1] & (NO_REPLY | NOT_WANTED | milter.P_HDR_LEADSPC),
    ]
    options += [0, 0]
    return int(milter.CONTINUE)


def serve(address: str, workers: int) -> None:
    """Never returns."""
    silent = [
        milter.set_connect_callback,
        milter.set_helo_callback,
        milter.set_envfrom_callback,
        milter.set_envrcpt_callback,
        milter.set_header_callback,
        milter.set_eoh_callback,
    ]
    for register in silent:
        register(lambda *_: milter.NOREPLY)
    milter.set_body_callback(lambda *_: milter.CONTINUE)
    milter.set_eom_callback(lambda *_: milter.ACCEPT)
    milter.set_close_callback(lambda *_: milter.CONTINUE)
    milter.register("empty", negotiate=negotiate)
    os.umask(0)
    milter.setconn(address)
    milter.opensocket(False)
    for descriptor in range(3, 64):
        try:
            os.set_blocking(descriptor, False)
        except OSError:
            continue
    children = [pid for _ in range(workers) if (pid := os.fork())]
    if len(children) < workers:
        threading.Thread(target=milter.main, daemon=True).start()
        signal.pause()
    signal.signal(signal.SIGTERM, lambda *_: stop(children))
    signal.pause()


def stop(children: list[int]) -> None:
    """End the workers and this process."""
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
