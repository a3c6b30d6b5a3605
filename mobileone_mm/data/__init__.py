"""Data: loading that survives broken files, checks before a run, converters, packed datasets."""
