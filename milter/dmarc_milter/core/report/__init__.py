"""Aggregate and failure reports (RFC 9990, RFC 7489, RFC 9991, RFC 6591)."""
