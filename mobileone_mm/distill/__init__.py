"""Learning from teachers: a classifier with soft labels, its teachers, and their stored outputs.

Nothing is imported here: the modules that need mmpretrain load when a config names them.
"""
