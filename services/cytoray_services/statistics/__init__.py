"""Uncertainty of scores by resampling of images."""

FEW = 6
"""With fewer units (images, movies, groups) their variation is unknown."""
