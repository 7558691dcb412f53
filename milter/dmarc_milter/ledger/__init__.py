"""The ledger: what was seen, durably, until it has been reported."""
