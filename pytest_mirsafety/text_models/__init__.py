"""Models that judges ask: behind an endpoint, or in this process."""
