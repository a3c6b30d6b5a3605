"""The demo: draws datasets, and runs the tools on them."""
