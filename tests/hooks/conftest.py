"""The fixtures of the training tests."""

from ..training.conftest import make_runner, refused, train

__all__ = ['make_runner', 'refused', 'train']
