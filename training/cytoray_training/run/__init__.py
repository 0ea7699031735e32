"""A training run: its folder, workers, loop, checkpoints and progress."""
