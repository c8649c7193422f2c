"""The page of a run: one file that needs no network, and runs nothing that is not ours."""
