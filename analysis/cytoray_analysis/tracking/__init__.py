"""Tracking: objects of each frame linked into lineages, read, written and scored."""
