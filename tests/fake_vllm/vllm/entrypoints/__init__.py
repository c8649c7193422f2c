"""Stands in for vLLM where it is not installed; see `entrypoints/openai/api_server.py`."""
