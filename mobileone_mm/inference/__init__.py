"""Predictions: as plain data, as drawings, as metrics files; the images that a user names."""
