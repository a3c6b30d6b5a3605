"""Robustness of an ImageNet classifier: corruptions, layouts of the published sets, error measures."""
