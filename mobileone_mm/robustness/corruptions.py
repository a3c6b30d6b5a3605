"""The 15 corruptions of ImageNet-C in five severities (arXiv 1903.12261, section 3, appendix B).

Packages that make them did not serve. ``imagecorruptions`` fails with today's scikit-image, and
``imagecorruptions-imaug``, which works, takes noise from process-wide or unseeded generators (the
same image twice is not the same), needs scikit-image, SciPy and Numba, and carries photographs of
frost of unknown licence. Strengths are those of the authors' program; what differs from their files
is in docs/robustness.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from ..errors import InputError
from . import blur, digital, noise, weather
from .digital import jpeg

SEVERITIES = (1, 2, 3, 4, 5)
GROUPS = {
    'noise': ('gaussian_noise', 'shot_noise', 'impulse_noise'),
    'blur': ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    'weather': ('snow', 'frost', 'fog', 'brightness'),
    'digital': ('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
}
CORRUPTIONS = tuple(name for group in GROUPS.values() for name in group)
# The published images are JPEG files of this quality.
STORED_QUALITY = 85

_MODULES = {'noise': noise, 'blur': blur, 'weather': weather, 'digital': digital}
_FUNCTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    name: getattr(_MODULES[group], name) for group, names in GROUPS.items() for name in names
}


def corrupt(image: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Corrupt an image.

    Lengths are pixels of an image of 224, whatever the image's size.

    Args:
        image: (H, W, 3), RGB, uint8.
        name: One of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        rng: Source of what is random, see :func:`generator`.

    Returns:
        The same shape and type. Values are cut off to whole numbers, as in the published images.

    Raises:
        InputError: The name or the severity is unknown, or it is no RGB image of uint8.
    """
    check_names([name], [severity])
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
        got = (
            f'{image.dtype} {image.shape}'
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise InputError(f'image: got {got}; an array (H, W, 3) of uint8 is needed')
    return np.clip(_FUNCTIONS[name](image, severity, rng), 0, 255).astype(np.uint8)


def generator(seed: int, name: str, severity: int, image: str) -> np.random.Generator:
    """A source of random numbers that depends on nothing but these.

    Args:
        seed: Of the whole evaluation, 0 or more.
        name: The corruption.
        severity: 1 to 5.
        image: The image's name.
    """
    return np.random.default_rng(
        [seed, zlib.crc32(name.encode()), severity, zlib.crc32(image.encode())]
    )


def as_stored(image: np.ndarray) -> np.ndarray:
    """What is left of an image after JPEG of quality 85, as the published images are stored."""
    return jpeg(image, STORED_QUALITY)


def check_names(names: list[str], severities: list[int]) -> None:
    """Check names and severities.

    Raises:
        InputError: One is unknown.
    """
    for name in names:
        if name not in CORRUPTIONS:
            raise InputError(f"--corruptions: got '{name}'; allowed are {', '.join(CORRUPTIONS)}")
    for severity in severities:
        if severity not in SEVERITIES:
            raise InputError(f'--severities: got {severity}; 1 to 5 is allowed')
