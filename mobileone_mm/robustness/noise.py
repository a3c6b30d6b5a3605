"""Noise of ImageNet-C. Functions take an RGB image (uint8) and return values of 0 to 255."""

from __future__ import annotations

import numpy as np

# By severity 1 to 5, for values of 0 to 1.
GAUSSIAN_STD = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT_PHOTONS = (60, 25, 12, 5, 3)
IMPULSE_AMOUNT = (0.03, 0.06, 0.09, 0.17, 0.27)


def gaussian_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise, independent for each pixel and channel."""
    return image + 255 * rng.normal(scale=GAUSSIAN_STD[severity - 1], size=image.shape)


def shot_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add Poisson noise: each value is a number of photons."""
    photons = SHOT_PHOTONS[severity - 1]
    return 255 / photons * rng.poisson(image / 255 * photons)


def impulse_noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Set a share of the values to black or white with equal probability."""
    hit = rng.random(image.shape) < IMPULSE_AMOUNT[severity - 1]
    white = rng.random(image.shape) < 0.5
    return np.where(hit, 255.0 * white, image)
