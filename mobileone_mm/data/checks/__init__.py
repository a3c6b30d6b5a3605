"""Checks of the data before a run. Each error is one line that names what is missing or does not fit."""
