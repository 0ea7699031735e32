"""Tokens, their scopes, and what a caller may do."""
