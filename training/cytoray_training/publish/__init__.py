"""From the best weights of a run to a registered model."""
