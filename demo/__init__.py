"""The demo: drawn datasets, and training, testing, converting and predicting on them."""
