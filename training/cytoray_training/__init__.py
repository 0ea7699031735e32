"""From a recipe to a trained bundle, on one machine or on many."""
