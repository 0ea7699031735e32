"""Data sets that people correct, over HTTP."""
