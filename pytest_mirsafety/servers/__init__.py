"""Servers that a run starts itself: watched over, asked for their words, and always ended."""
