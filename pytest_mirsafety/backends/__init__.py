"""The backends: what answers requests. Each is imported when a model is built, never before."""
