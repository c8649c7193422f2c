"""Attention entropy: measured while a model answers, then held against the outcomes.

The definition is in docs/method.md. `measuring` needs torch, `comparing` scipy, `picture`
matplotlib; nothing of it is imported before somebody asks for it.
"""
