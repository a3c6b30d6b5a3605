"""The fixtures of the training tests."""

from __future__ import annotations

from ..training.conftest import make_runner

__all__ = ['make_runner']
