"""Where the time of one message goes: `make profile`, or `python -m bench.stages [--sort tottime]
[--cold]`.

Sessions are driven in this process, without libmilter; the spool's thread is left out. DNS is a
server process; by default every answer is known already, but no message comes twice.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.corpus import Sample, load_or_make
from bench.place import dns_server
from dmarc_milter.config import load
from dmarc_milter.daemon import wiring
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.session.session import Session
from dmarc_milter.telemetry.log import Log
from fakes.daemon import ROOT, toml

MESSAGES = 600
"""In each batch."""


@contextmanager
def sessions(folder: Path, nameserver: str) -> Iterator[Callable[[], Session]]:
    """Makes sessions as a worker does."""
    config = folder / "dmarc-milter.toml"
    tables = {
        "authentication": {"authserv_id": "mx.bench.example", "trusted_networks": []},
        "dns": {"nameservers": [nameserver]},
        "store": {"url": f"sqlite:///{folder}/reports.db"},
    }
    config.write_text(toml(tables))
    shared_memory = SharedMemory(1)
    loaded = load(config)
    log = Log(os.open(os.devnull, os.O_WRONLY))
    log.start()
    service = wiring.build(loaded, Loop(), shared_memory.slot(0), shared_memory, log)
    yield lambda: Session(service.handler, service.options, name="c0")
    service.close()


def drive(session: Session, sample: Sample, number: int) -> None:
    """One message, as libmilter's callbacks hand it on."""
    macros = {"i": f"4B{number:08X}", "{daemon_name}": "smtpd"}

    def macro(name: str) -> str:
        return macros.get(name, "")

    session.connect(sample.client, macro)
    session.helo(sample.helo)
    session.mail(f"<{sample.mail_from}>".encode(), (), macro)
    session.rcpt(b"<user@receiver.example>")
    for name, value in sample.fields:
        session.header(name, value)
    session.end_of_headers(macro)
    for start in range(0, len(sample.body), 65535):
        session.body(sample.body[start : start + 65535])
    session.end_of_message(macro)
    session.close()


def main() -> None:
    """Print CPU per message without the profiler, then the profile."""
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".test/bench")
    parser.add_argument("--sort", default="tottime")
    parser.add_argument("--lines", type=int, default=45)
    parser.add_argument(
        "--cold", action="store_true", help="no answer is remembered from message to message"
    )
    arguments = parser.parse_args()
    corpus = load_or_make(arguments.folder)
    ttl = 0 if arguments.cold else 3600
    with (
        tempfile.TemporaryDirectory() as folder,
        dns_server(corpus.zone, ttl=ttl, private=False) as dns,
        sessions(Path(folder), dns.nameserver) as make,
    ):

        def run(samples: list[Sample]) -> float:
            before = time.thread_time()
            for number, sample in enumerate(samples):
                drive(make(), sample, number)
            return (time.thread_time() - before) / len(samples) * 1e6

        learn, *measured, profiled = (corpus.batch(each, MESSAGES) for each in range(5))
        run(learn)
        print(f"{min(map(run, measured)):.0f} us of CPU a message in this thread")
        profile = cProfile.Profile(
            time.thread_time_ns, 1e-9
        )  # of this thread alone: waiting costs nothing
        profile.runcall(run, profiled)
    pstats.Stats(profile).sort_stats(arguments.sort).print_stats(arguments.lines)


if __name__ == "__main__":
    main()
