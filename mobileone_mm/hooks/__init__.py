"""Hooks, one file each. Configs name them, and the registry imports them on demand."""
