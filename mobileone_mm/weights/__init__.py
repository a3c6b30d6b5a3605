"""Weights in and out: safe reading, key tables, one loader with a check, conversion."""
