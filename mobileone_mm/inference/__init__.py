"""Trained models, the images to predict, and predictions as data, drawings and files."""
