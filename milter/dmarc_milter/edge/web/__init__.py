"""The read-only dashboard."""
