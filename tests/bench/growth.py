"""How cost grows: `python -m bench --growth`. Each line should grow no faster than what it counts;
the last column says how it did.

Body size, header fields, signatures and look-ups in one process, by its processor's clock;
connections and workers with the daemon itself; distinct domains in the two memories of the
resolver. Rows of the store: `python -m bench.ledger`.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench import contenders
from bench.contenders import Where
from bench.corpus import Corpus, Sample
from bench.load import Driver
from bench.place import dns_server
from bench.stages import drive, sessions
from dmarc_milter.dns.answer import Answer
from dmarc_milter.dns.cache import BoundedStore, Cache, Derived
from dmarc_milter.session.session import Session

KB, MB = 1_000, 1_000_000
TEXT = b"A line of an attachment, seventy-six octets of it, as base64 would have it.\r\n"


def line(what: str, counts: Sequence[int], costs: Sequence[float], unit: str) -> None:
    """One line: the costs, and how the last step grew against its count."""
    grown = (costs[-1] / costs[0]) / (counts[-1] / counts[0]) if costs[0] else 0.0
    cells = "  ".join(f"{count:,}: {cost:.2f}" for count, cost in zip(counts, costs, strict=True))
    print(
        f"{what:<22} {unit:<10} {cells}   (cost x{costs[-1] / costs[0]:.1f} for"
        f" x{counts[-1] / counts[0]:.0f}: {grown:.2f})"
    )


def changed(sample: Sample, **fields: object) -> Sample:
    """The sample with other fields or another body."""
    return Sample(
        **{name: fields.get(name, getattr(sample, name)) for name in Sample.__struct_fields__}
    )


def milliseconds(make: Callable[[], Session], sample: Sample, tries: int = 5) -> float:
    """Of processor time for one message; the best of some tries."""
    best = float("inf")
    for number in range(tries):
        before = time.thread_time()
        drive(make(), sample, number)
        best = min(best, time.thread_time() - before)
    return best * 1e3


def with_fields(sample: Sample, count: int) -> Sample:
    """So many unsigned fields more."""
    return changed(
        sample,
        fields=[
            *sample.fields,
            *((b"X-More", b" some text of a usual length, number %d" % n) for n in range(count)),
        ],
    )


def with_signatures(sample: Sample, count: int) -> Sample:
    """So many distinct signatures: the sample's own, with a tag more."""
    (own,) = [each for each in sample.fields if each[0] == b"DKIM-Signature"][:1]
    return changed(
        sample,
        fields=[*sample.fields, *((own[0], own[1] + b"; y=%d" % n) for n in range(count - 1))],
    )


def by_size(corpus: Corpus, folder: Path) -> None:
    """What one message costs by its size."""
    sample = next(each for each in corpus.batch(0, 20) if each.kind == "direct")
    with dns_server(corpus.zone, private=False) as dns, sessions(folder, dns.nameserver) as make:
        drive(make(), sample, 0)
        sizes = (2 * KB, 20 * KB, 200 * KB, 2 * MB, 20 * MB, 50 * MB)
        bodies = (changed(sample, body=(TEXT * (size // len(TEXT) + 1))[:size]) for size in sizes)
        line("body, octets", sizes, [milliseconds(make, each, 3) for each in bodies], "ms")
        counts = (10, 100, 900)
        line(
            "header fields",
            counts,
            [milliseconds(make, with_fields(sample, count)) for count in counts],
            "ms",
        )
        counts = (1, 3, 10, 30)
        line(
            "signatures",
            counts,
            [milliseconds(make, with_signatures(sample, count)) for count in counts],
            "ms",
        )


def daemon(corpus: Corpus, folder: Path) -> None:
    """Connections at once, and workers."""
    with dns_server(corpus.zone, private=False) as dns:
        with contenders.ours(Where(folder / "connections"), dns.nameserver) as one:
            Driver(one.chain, corpus.batch(0, 600), connections=8).run(600)
            counts, costs, sizes = (1, 10, 100, 1000), [], []
            for number, count in enumerate(counts, 1):
                messages = max(500, count)
                driver = Driver(one.chain, corpus.batch(number, messages), connections=count)
                driver.prepare()
                before = one.cost.cpu()
                driver.run(messages)
                costs.append((one.cost.cpu() - before) / messages * 1e3)
                sizes.append(one.cost.memory())
            line("connections", counts, costs, "ms/message")
            line("connections", counts, sizes, "MB")
        workers, memory, rates = (1, 2, 4), [], []
        for count in workers:
            with contenders.ours(
                Where(folder / f"workers{count}"), dns.nameserver, workers=count
            ) as one:
                Driver(one.chain, corpus.batch(0, 600), connections=8).run(600)
                rates.append(Driver(one.chain, corpus.batch(1, 800), connections=16).run(800).rate)
                memory.append(one.cost.memory())
        line("workers", workers, rates, "messages/s")
        line("workers", workers, memory, "MB")


def names(counts: Iterable[int] = (10, 1000, 100_000, 1_000_000)) -> None:
    """Distinct domains through both memories: bounded in number and octets, each as quick as the
    first."""
    for count in counts:
        cache, derived_cache = (
            Cache(entries=10_000, octets=16 << 20),
            BoundedStore[object, Derived](entries=10_000, octets=8 << 20),
        )
        before = time.process_time()
        for number in range(count):
            key = (f"_dmarc.d{number}.example", "TXT")
            cache.put(key, Answer((b"v=DMARC1; p=reject; rua=mailto:d@d.example",), ttl=3600), 0.0)
            derived_cache.keep(
                ("published", key), Derived(object(), frozenset((key,)), 3600.0, 2000), 0.0
            )
        spent = (time.process_time() - before) / count * 1e6
        held = (
            f"{len(cache)} answers in {cache.size / MB:.1f} MB, {len(derived_cache)} derived in"
            f" {derived_cache.size / MB:.1f} MB"
        )
        print(f"{'distinct domains':<22} {count:>9,}: {spent:.1f} us each, {held}")
    print(
        f"{'':<22} highest memory of this process"
        f" {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KB:.0f} MB"
    )


def growth(corpus: Corpus) -> None:
    """All lines."""
    with tempfile.TemporaryDirectory(prefix="dmarc-growth-") as folder:
        daemon(corpus, Path(folder))
        by_size(corpus, Path(folder))
        names()
