"""The running service: supervisor, workers, jobs, metrics."""
