"""Stand-in for mmcv's compiled operators (``mobileone_mm.compat``)."""

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
    """Return a function that raises when it is called: the module's ``__getattr__``.

    mmcv looks up every operator of a file at import, so the look-up itself must succeed.
    """
    if name.startswith('__'):  # by these names the import system and tools probe modules
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")

    def operator(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f'{name}: this operator of mmcv._ext needs compiled mmcv. mobileone_mm has no '
            f'stand-in for it. With a C++ compiler, install it by: {install_hint()}'
        )

    return operator


def install_hint() -> str:
    """Return the commands, on one line, that install compiled operators for this mmcv."""
    fork, lite = _version('onedl-mmcv'), _version('mmcv-lite')
    name, version = ('onedl-mmcv', fork) if fork else ('mmcv', lite or _version('mmcv') or '2.1.0')
    tools = 'setuptools' if fork else '"setuptools<81"'  # older mmcv imports pkg_resources
    remove = 'python -m pip uninstall -y mmcv-lite && ' if lite and not fork else ''
    # Without --no-cache-dir pip takes the wheel without operators that it built before.
    return (
        f'python -m pip install {tools} ninja psutil wheel && {remove}'
        'MMCV_WITH_OPS=1 python -m pip install --no-build-isolation --no-cache-dir --no-deps '
        f'--force-reinstall --no-binary {name} {name}=={version}'
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
