"""How a new version goes live: a rollout, as a canary or as a shadow, kept in the registry."""
