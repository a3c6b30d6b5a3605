"""Digital corruptions of ImageNet-C. Functions take an RGB image (uint8) and return 0 to 255."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from .blur import gaussian

# By severity 1 to 5.
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
# Strength and sigma of the waves, reach of the affine map, in pixels of an image of 224.
ELASTIC = (
    (488, 170.8, 24.4),
    (488, 19.52, 48.8),
    (12.2, 2.44, 4.88),
    (17.08, 2.44, 4.88),
    (29.28, 2.44, 4.88),
)
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG_QUALITY = (25, 18, 15, 10, 7)


def contrast(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Reduce the distance of each value to the mean of its channel."""
    mean = image.mean((0, 1), keepdims=True)
    return mean + CONTRAST[severity - 1] * (image - mean)


def elastic_transform(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Distort by an affine map of three moved points, then by waves.

    Severities 1 and 2 have a strong map and long waves, 3 to 5 a weak map and short waves. The
    published strengths do not rise from 2 to 3, and the error of AlexNet does not rise there.
    """
    strength, sigma, reach = ELASTIC[severity - 1]
    height, width = image.shape[:2]
    middle = np.array([height // 2, width // 2], np.float32)
    side = min(height, width) // 3
    points = middle + side * np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    moved = points + rng.uniform(-reach, reach, points.shape).astype(np.float32)
    matrix = cv2.getAffineTransform(points, moved)
    warped = cv2.warpAffine(
        image.astype(np.float32), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    right, down = (
        strength * gaussian(rng.uniform(-1, 1, (height, width)), sigma, truncate=3, reflect=True)
        for _ in range(2)
    )
    rows, columns = np.mgrid[:height, :width]
    right, down = (columns + right).astype(np.float32), (rows + down).astype(np.float32)
    return cv2.remap(warped, right, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def pixelate(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Make the image smaller and large again by averages over boxes."""
    height, width = image.shape[:2]
    factor = PIXELATE[severity - 1]
    size = max(1, int(width * factor)), max(1, int(height * factor))
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Compress as JPEG."""
    return jpeg(image, JPEG_QUALITY[severity - 1])


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Write an RGB image (uint8) as JPEG with the settings of Pillow, and read it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=quality)
    return np.asarray(Image.open(file))
