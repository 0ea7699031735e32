"""Bulk prediction for work that is too long for a request: slides, volumes, plates, movies, large folders."""
