"""Defences: each is one small file, and a Protocol says what it must be."""
