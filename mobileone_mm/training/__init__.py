"""Additions to mmengine's training: exact resume, curricula, seeds by position, CPU process groups."""
