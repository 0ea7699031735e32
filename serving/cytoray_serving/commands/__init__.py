"""The commands ``predict``, ``serve`` and ``jobs``."""
