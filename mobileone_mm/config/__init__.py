"""Configs: read, override, check, change; faults of a config explained in one line."""
