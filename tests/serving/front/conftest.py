"""Fixtures of the front of a service."""

from front_doors import open_door

__all__ = ["open_door"]
