"""What every adapter of an OpenAI-compatible endpoint shares: connection, key, replies, errors."""
