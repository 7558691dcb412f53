"""Where the outside is touched: sockets, files, databases, the clock, the MTA."""
