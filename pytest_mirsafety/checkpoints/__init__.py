"""Checkpoints that run on this machine: which one it is, and what it computes on."""
