"""The Authentication-Results field (RFC 8601): read, written, and recognised as forged."""
