"""The 15 corruptions of ImageNet-C in five severities (arXiv 1903.12261, section 3, appendix B).

Existing packages cannot be used. ``imagecorruptions`` fails with the current scikit-image.
``imagecorruptions-imaug`` takes noise from unseeded generators, needs scikit-image, SciPy and Numba,
and contains photographs of unknown licence. Strengths are those of the authors' program;
docs/robustness.md lists the differences.
"""

import zlib
from collections.abc import Callable, Iterable

import numpy as np

from ..errors import InputError
from . import blur, digital, weather
from .digital import jpeg

SEVERITIES = (1, 2, 3, 4, 5)
GROUPS = {
    'noise': ('gaussian_noise', 'shot_noise', 'impulse_noise'),
    'blur': ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    'weather': ('snow', 'frost', 'fog', 'brightness'),
    'digital': ('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
}
CORRUPTIONS = tuple(name for group in GROUPS.values() for name in group)
# Quality of the published JPEG files.
STORED_QUALITY = 85

_MODULES = {'noise': digital, 'blur': blur, 'weather': weather, 'digital': digital}
_FUNCTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    name: getattr(_MODULES[group], name) for group, names in GROUPS.items() for name in names
}


def corrupt(image: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Corrupt an image; lengths in pixels are those for an image of 224, for any size.

    The image is (H, W, 3), RGB, uint8; so is the result, whose values are truncated, as in the
    published images. ``rng`` comes from :func:`generator`.
    """
    return np.clip(_FUNCTIONS[name](image, severity, rng), 0, 255).astype(np.uint8)


def generator(seed: int, name: str, severity: int, image: str) -> np.random.Generator:
    """Make a generator that depends on seed, corruption, severity and name of the image alone."""
    return np.random.default_rng(
        [seed, zlib.crc32(name.encode()), severity, zlib.crc32(image.encode())]
    )


def as_stored(image: np.ndarray) -> np.ndarray:
    """Compress as JPEG of quality 85, as the published images are stored."""
    return jpeg(image, STORED_QUALITY)


def check_names(names: Iterable[str], severities: Iterable[int]) -> None:
    """Raise an InputError for an unknown corruption or severity."""
    for name in names:
        if name not in CORRUPTIONS:
            raise InputError(f"--corruptions: got '{name}'; allowed are {', '.join(CORRUPTIONS)}")
    for severity in severities:
        if severity not in SEVERITIES:
            raise InputError(f'--severities: got {severity}; expected 1 to 5')
