"""Fixtures of the gateway's own tests."""

from tests.fakes.pools import clock, pool

__all__ = ["clock", "pool"]
