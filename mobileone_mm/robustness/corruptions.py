"""The 15 corruptions of ImageNet-C in five severities (arXiv 1903.12261, section 3, appendix B).

Strengths are those of the authors' program. docs/robustness.md lists the differences, and says why no
existing package can be used.
"""

import zlib

import numpy as np

from . import blur, digital, weather

SEVERITIES = (1, 2, 3, 4, 5)
GROUPS = {
    'noise': ('gaussian_noise', 'shot_noise', 'impulse_noise'),
    'blur': ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    'weather': ('snow', 'frost', 'fog', 'brightness'),
    'digital': ('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
}
CORRUPTIONS = tuple(name for group in GROUPS.values() for name in group)
_FUNCTIONS = vars(blur) | vars(digital) | vars(weather)


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
