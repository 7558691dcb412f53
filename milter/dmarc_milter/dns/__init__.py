"""The DNS at the edge: one client and one cache a process, a budget a message."""
