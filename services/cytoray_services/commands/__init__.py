"""The command line: its root, and the commands of this layer."""
