"""Measurements of time, memory and operations, and their tables. Models and data come from outside."""
