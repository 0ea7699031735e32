"""How sure a score is: images are drawn again and again, and the score of what was drawn is computed again."""

FEW = 6
"""Below so many units (images, movies, groups) nothing is known about how they vary."""
