"""From a recipe and its data to a plan that is sent to workers."""
