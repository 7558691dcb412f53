"""The store that reports are built from, shared between hosts where it is PostgreSQL."""
