"""Prediction from files to files, without a service or through one."""
