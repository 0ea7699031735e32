"""How a new version goes live: canary and shadow, kept in the registry."""
