"""Decisions told to people: one message as a story, many as evidence about who sent them."""

from dmarc_milter.explain.story import explain, sentence

__all__ = ["explain", "sentence"]
