"""The fixtures of the training tests."""

from ..training.conftest import make_runner

__all__ = ['make_runner']
