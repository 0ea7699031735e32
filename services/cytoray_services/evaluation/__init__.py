"""The scores of a model on a data set, with intervals, baselines and pictures."""
