"""Stand-in for mmcv's compiled operators on plain torch (``mobileone_mm.compat``)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, NoReturn

from .ops.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from .ops.nms import nms
from .ops.roi_align import roi_align_backward, roi_align_forward
from .ops.softnms import softnms

#: Name in ``mmcv._ext`` -> implementation.
OPERATORS: dict[str, Callable[..., Any]] = {
    'nms': nms,
    'softnms': softnms,
    'roi_align_forward': roi_align_forward,
    'roi_align_backward': roi_align_backward,
    'sigmoid_focal_loss_forward': sigmoid_focal_loss_forward,
    'sigmoid_focal_loss_backward': sigmoid_focal_loss_backward,
}


def missing(name: str) -> Callable[..., NoReturn]:
    """Serve as the module's ``__getattr__``: a function that raises when it is called.

    mmcv looks up every operator of a file at import, so the look-up itself must succeed.

    Raises:
        AttributeError: For dunder names, by which the import system and tools probe modules.
    """
    if name.startswith('__'):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")

    def operator(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f'{name}: this operator of mmcv._ext needs compiled mmcv, mobileone_mm has no '
            f'stand-in for it; with a C++ compiler, install it by: {install_hint()}'
        )

    operator.__name__ = operator.__qualname__ = name
    return operator


def install_hint() -> str:
    """Commands, on one line, that put compiled operators in place of the installed mmcv."""
    fork, lite = _version('onedl-mmcv'), _version('mmcv-lite')
    if fork is not None:
        needs, name, version = 'setuptools', 'onedl-mmcv', fork
    else:  # older mmcv imports pkg_resources while it builds
        needs, name, version = '"setuptools<81"', 'mmcv', lite or _version('mmcv') or '2.1.0'
    commands = [f'python -m pip install {needs} ninja psutil wheel']
    if lite is not None and fork is None:
        commands.append('python -m pip uninstall -y mmcv-lite')
    # Without --no-cache-dir pip takes the wheel without operators that it built before.
    commands.append(
        'MMCV_WITH_OPS=1 python -m pip install --no-build-isolation --no-cache-dir --no-deps '
        f'--force-reinstall --no-binary {name} {name}=={version}'
    )
    return ' && '.join(commands)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
