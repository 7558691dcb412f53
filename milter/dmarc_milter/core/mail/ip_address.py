"""Addresses of clients, in one form."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

IPAddress = IPv4Address | IPv6Address


def plain_address(address: IPAddress) -> IPAddress:
    """Without a zone id, and an IPv4-mapped address as IPv4 (docs/design.md, Decisions)."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def parse_address(text: str) -> IPAddress | None:
    """An address as servers write it: `IPv6:`, brackets or a zone id may be there. IPv4-mapped is
    IPv4. None if it is none."""
    bare = text.partition("%")[0]
    if bare[:5].lower() == "ipv6:":
        bare = bare[5:]
    try:
        return plain_address(ip_address(bare.strip("[]")))
    except ValueError:
        return None
