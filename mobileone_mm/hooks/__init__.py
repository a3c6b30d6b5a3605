"""Hooks that mmengine lacks, one file each; configs name them, and the registry imports them on demand."""
