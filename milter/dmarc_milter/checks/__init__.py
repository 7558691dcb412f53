"""Findings about an installation that `config check` and `serve` share."""
