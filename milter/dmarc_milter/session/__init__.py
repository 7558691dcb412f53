"""One MTA connection: the milter protocol's events in, actions out."""
