"""Weather of ImageNet-C. Functions take an RGB image (uint8) and return values of 0 to 255."""

from __future__ import annotations

import cv2
import numpy as np

from .blur import smear, zoom
from .frost import frost_layer

# By severity 1 to 5, for values of 0 to 1; lengths in pixels of an image of 224.
# Mean and spread of the flakes, zoom, threshold, radius and sigma of their motion, share of the image.
SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # shares of image and frost
FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))  # strength, decay of the finer steps
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)


def snow(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Make the image whiter, and add flakes that fall in two directions."""
    mean, spread, factor, threshold, radius, sigma, share = SNOW[severity - 1]
    height, width = image.shape[:2]
    flakes = zoom(rng.normal(mean, spread, (height, width)).astype(np.float32), factor)
    flakes = np.where(flakes < threshold, 0, np.minimum(flakes, 1))
    flakes = (255 * flakes).astype(np.uint8).astype(np.float64)
    flakes = smear(flakes, radius, sigma, rng.uniform(-135, -45))[..., None]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    whitened = share * image + (1 - share) * np.maximum(image, 1.5 * grey + 127.5)
    return whitened + flakes + flakes[::-1, ::-1]


def frost(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add a drawn pane of frost (:mod:`mobileone_mm.robustness.frost`)."""
    share, pane = FROST[severity - 1]
    return share * image + pane * frost_layer(image.shape[0], image.shape[1], rng)


def fog(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add clouds, and scale the sum to the maximum of the image."""
    strength, decay = FOG[severity - 1]
    height, width = image.shape[:2]
    size = 1 << (max(height, width, 2) - 1).bit_length()
    clouds = plasma(size, decay, rng)[:height, :width, None]
    top = image.max() / 255
    return (image + 255 * strength * clouds) * top / (top + strength)


def plasma(size: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Make periodic clouds of values 0 to 1 by the diamond-square algorithm.

    The side is a power of 2; each step divides the noise by the square of the decay.
    """
    field = np.zeros((size, size))
    step, noise = size, 1.0

    def middle(*neighbours: np.ndarray) -> np.ndarray:
        return sum(neighbours) / 4 + rng.uniform(-noise, noise, neighbours[0].shape)

    while step > 1:
        half = step // 2
        corner = field[::step, ::step]
        below, right = np.roll(corner, -1, 0), np.roll(corner, -1, 1)
        centre = middle(corner, below, right, np.roll(below, -1, 1))
        field[half::step, half::step] = centre
        field[::step, half::step] = middle(corner, right, centre, np.roll(centre, 1, 0))
        field[half::step, ::step] = middle(corner, below, centre, np.roll(centre, 1, 1))
        step, noise = half, noise / decay**2
    field -= field.min()
    return field / max(field.max(), np.finfo(float).tiny)


def brightness(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Raise the value of HSV, up to 1; hue and saturation stay.

    RGB is then proportional to the value, so that no conversion is needed. Black becomes grey.
    """
    value = image.max(2, keepdims=True) / 255
    raised = np.minimum(value + BRIGHTNESS[severity - 1], 1)
    return np.where(value > 0, image * raised / np.where(value > 0, value, 1), 255 * raised)
