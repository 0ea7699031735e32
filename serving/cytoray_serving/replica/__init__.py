"""Replicas: they hold versions of models and answer batches of questions."""
