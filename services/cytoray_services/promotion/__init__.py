"""Promotion: a candidate becomes the champion through a gate, on images that are frozen."""
