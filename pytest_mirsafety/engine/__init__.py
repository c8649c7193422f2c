"""Asks for all planned instances ahead of the tests that wait for them, and judges the answers."""
