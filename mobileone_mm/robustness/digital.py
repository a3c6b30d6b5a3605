"""Noise and digital corruptions of ImageNet-C, from an RGB image (uint8) to values of 0 to 255."""

import io

import cv2
import numpy as np
from PIL import Image

from .blur import gaussian

# By severity 1 to 5; noise is for values of 0 to 1.
GAUSSIAN_STD = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT_PHOTONS = (60, 25, 12, 5, 3)
IMPULSE_AMOUNT = (0.03, 0.06, 0.09, 0.17, 0.27)
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
STORED_QUALITY = 85  # of the published files


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


def jpeg(image: np.ndarray, quality: int = STORED_QUALITY) -> np.ndarray:
    """Write an RGB image (uint8) as JPEG with the settings of Pillow, and read it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=quality)
    return np.asarray(Image.open(file))
