"""Checks of the data before a run: what is missing or does not fit is named in one line."""
