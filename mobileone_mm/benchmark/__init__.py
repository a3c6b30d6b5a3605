"""Measurements: time, memory, operations, and their reports."""
