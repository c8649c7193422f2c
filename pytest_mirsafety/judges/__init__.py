"""The judges: what gives verdicts on answers. Each is imported when it is built, never before."""
