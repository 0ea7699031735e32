"""Images that a caller sent once: shown as tiles, and answered by models."""
