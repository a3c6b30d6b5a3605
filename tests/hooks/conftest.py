"""The fixtures of the training tests."""

from ..tools.conftest import refused
from ..training.conftest import make_runner, train

__all__ = ['make_runner', 'refused', 'train']
