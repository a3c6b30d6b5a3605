"""Checks of the data before a run. Each error is one line with the name of the cause."""
