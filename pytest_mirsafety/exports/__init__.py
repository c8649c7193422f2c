"""A recorded run in other tools' formats: pure functions from its records to bytes."""
