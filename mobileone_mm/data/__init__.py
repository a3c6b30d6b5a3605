"""Data: loading that continues after broken files, checks before a run, converters, packed datasets."""
