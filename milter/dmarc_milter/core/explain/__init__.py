"""Decisions explained to people: one message as a story, many as evidence about who sent them."""

from dmarc_milter.core.explain.message import explain, sentence

__all__ = ["explain", "sentence"]
