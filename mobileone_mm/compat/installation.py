"""Puts the stand-ins in place, and says which of them are at work."""

from __future__ import annotations

import importlib
import sys
import threading

from . import latecomer, processes
from .finders import ExtFinder, TorchvisionFinder, is_stand_in

_LOCK = threading.Lock()


def install() -> None:
    """Make the stand-ins available to every later import; calling again does nothing.

    Warns, in one line, if a host was imported before and has put placeholders for what it missed:
    those have been copied from module to module and cannot be replaced from outside.
    """
    with _LOCK:
        if any(isinstance(finder, ExtFinder) for finder in sys.meta_path):
            return
        for package in ('torchvision', 'mmcv.ops'):
            latecomer.forget_failed(package)
        sys.meta_path.insert(0, TorchvisionFinder())
        sys.meta_path.append(ExtFinder())
        processes.carry_over()
        latecomer.complete_mmcv()
    latecomer.warn_of_placeholders()


def status() -> dict[str, str]:
    """Say for ``torchvision`` and ``mmcv._ext`` whether they are native.

    Imports both, since whether the compiled part of torchvision loads shows only then.

    Returns:
        Module name -> ``'native'``, ``'stand-in'`` or ``'absent'`` (package not installed).
    """
    return {name: _status_of(name) for name in ('torchvision', 'mmcv._ext')}


def _status_of(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        return 'absent'
    return 'stand-in' if is_stand_in(module) else 'native'
