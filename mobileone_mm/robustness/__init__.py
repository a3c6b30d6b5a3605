"""Robustness of image classifiers: corruptions, published test sets, error measures."""
