"""Synthetic data sets for every task, with the truth that made them."""
