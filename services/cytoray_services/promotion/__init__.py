"""Promotion: a candidate becomes the champion if it passes a gate, on a frozen evaluation set."""
