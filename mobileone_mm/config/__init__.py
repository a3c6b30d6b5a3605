"""Read, merge, check and explain configs."""
