"""The host's own spool: durable before the answer."""
