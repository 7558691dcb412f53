"""The openspf suite once more, over the wire: our resolver asking a real name server, so that names
and failures travel as they do."""

from __future__ import annotations

from typing import Any

from dmarc_milter.core.spf.check import check
from dmarc_milter.dns.resolver import DnsResolver
from dmarc_milter.process.loop import Loop
from fakes.dns_server import DnsServer
from fakes.dns_zone import Zone
from fakes.openspf import allowed, envelope, suite, zone


def specs(scripted: Zone) -> dict[str, dict[str, Any]]:
    """The zone in memory, as the server takes it."""
    found: dict[str, dict[str, Any]] = {}
    for name, types in scripted.records.items():
        found[name] = {
            rdtype: values[0] if rdtype == "CNAME" else values
            for rdtype, values in types.items()
            if values
        }
    for failing in scripted.failing:
        name, rdtype = (failing, "") if isinstance(failing, str) else failing
        spec = found.setdefault(name, {})
        spec["behaviour"] = (
            "servfail" if not rdtype else {**spec.get("behaviour", {}), rdtype: "servfail"}
        )
    return found


def test_openspf_over_the_wire() -> None:
    """Each scenario on a server and a resolver with an empty cache."""
    wrong = []
    with DnsServer() as server:
        for name, case, data in suite():
            server.replace(specs(zone(data)))
            resolver = DnsResolver(Loop(), [server.nameserver])
            try:
                result = check(envelope(case), resolver.for_message())
            finally:
                resolver.close()
            if result.status not in allowed(case):
                wrong.append(f"{name}: {result}")
    assert not wrong
