"""Sockets, privileges, child processes and shared memory of the operating system."""
