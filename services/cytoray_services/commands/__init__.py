"""The command line: its root, and the commands that concern no other layer."""
