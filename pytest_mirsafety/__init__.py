"""Multi-image safety benchmarks as pytest tests, attack success rates as release gates."""
