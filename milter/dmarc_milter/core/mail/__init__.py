"""Domains, addresses, header fields, messages and envelopes, as an attacker writes them."""
