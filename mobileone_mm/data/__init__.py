"""Data: loading that survives broken files, checks before a run, the procedural generator."""
