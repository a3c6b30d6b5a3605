"""Blur of ImageNet-C. Functions take an RGB image (uint8) and return values of 0 to 255."""

import math

import cv2
import numpy as np

# By severity 1 to 5; lengths in pixels of an image of 224.
DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))  # radius, sigma of the disk's edge
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, reach, rounds
MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma
ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))  # end, step


def defocus_blur(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Blur with a disk, like a lens out of focus."""
    return cv2.filter2D(image.astype(np.float64), -1, disk(*DEFOCUS[severity - 1]))


def disk(radius: int, edge: float) -> np.ndarray:
    """Make a disk of a radius in pixels, with an edge softened by a Gaussian of sigma ``edge``.

    The kernel sums to 1, except at radius 8 and 10: as in the published code, the softened edge is
    folded back there, so that the sum is 1.013 and 1.011 and the image gets brighter.
    """
    reach = max(8, radius)
    line = np.arange(-reach, reach + 1)
    inside = (line[:, None] ** 2 + line[None] ** 2 <= radius**2).astype(np.float64)
    size = 3 if radius <= 8 else 5
    return cv2.GaussianBlur(inside / inside.sum(), (size, size), edge)


def glass_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Blur, copy to each pixel the colour of a nearby one, and blur again.

    The paper exchanges nearby pixels. The published code assigns views of one array to each other,
    which copies; the published images were made with copies, and so are these.
    """
    sigma, reach, rounds = GLASS[severity - 1]
    image = gaussian(image.astype(np.float64), sigma).astype(np.uint8)
    height, width = image.shape[:2]
    for _ in range(rounds):
        down, right = rng.integers(-reach, reach, size=(2, height, width))
        image = take_neighbours(image, down, right, reach)
    return gaussian(image.astype(np.float64), sigma)


def take_neighbours(
    image: np.ndarray, down: np.ndarray, right: np.ndarray, reach: int
) -> np.ndarray:
    """Copy the colour of a neighbour to each pixel, from the last pixel to the first.

    A neighbour behind the pixel already has its new colour. These chains are followed for all
    pixels at once, without a loop over pixels.

    ``down`` and ``right`` (H, W) are the rows and columns to the neighbour. The pixels of a border
    of width ``reach`` stay, with the row and column at ``reach``.
    """
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    moved = (rows > reach) & (rows <= height - reach)
    moved &= (columns > reach) & (columns <= width - reach)
    source = (rows * width + columns + moved * (down * width + right)).ravel()
    found = source.copy()
    # Follow a chain while the neighbour has copied from another pixel before.
    follow = np.flatnonzero(source > np.arange(source.size))
    while follow.size:
        here = found[follow]
        found[follow] = source[here]
        follow = follow[source[here] > here]
    return image.reshape(-1, image.shape[2])[found].reshape(image.shape)


def gaussian(
    image: np.ndarray, sigma: float, truncate: float = 4, reflect: bool = False
) -> np.ndarray:
    """Blur with a Gaussian that ends at ``truncate`` times sigma; edges are repeated."""
    size = 2 * int(truncate * sigma + 0.5) + 1
    border = cv2.BORDER_REFLECT if reflect else cv2.BORDER_REPLICATE
    return cv2.GaussianBlur(image, (size, size), sigma, borderType=border)


def motion_blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Blur along a line, at most 45 degrees from the horizontal."""
    radius, sigma = MOTION[severity - 1]
    return smear(image.astype(np.float64), radius, sigma, rng.uniform(-45, 45))


def smear(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Blur to one side along a line with half a Gaussian; edges are repeated.

    The image is (H, W) or (H, W, C), floating point. The line has 2 radius + 1 pixels; sigma is in
    pixels, the angle in degrees from the horizontal.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    right = np.ceil(steps * math.cos(math.radians(angle)) - 0.5).astype(int)
    down = np.ceil(steps * math.sin(math.radians(angle)) - 0.5).astype(int)
    pad = int(steps[-1])
    padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    height, width = image.shape[:2]
    result = np.zeros_like(image)
    for weight, x, y in zip(weights.tolist(), right + pad, down + pad, strict=True):
        result += weight * padded[y : y + height, x : x + width]
    return result


def zoom_blur(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Average the image and its enlargements, like a camera that moves forward."""
    end, step = ZOOM[severity - 1]
    source = image.astype(np.float32)
    zoomed = [zoom(source, factor) for factor in np.arange(1, end, step).tolist()]
    return (source + np.sum(zoomed, axis=0)) / (len(zoomed) + 1)


def zoom(image: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge the centre of an image, (H, W) or (H, W, C) of float32, to its size, bilinearly."""
    columns, rows = (_zoomed_axis(size, factor) for size in image.shape[1::-1])
    across, down = np.meshgrid(columns, rows)
    return cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _zoomed_axis(size: int, factor: float) -> np.ndarray:
    # The outer pixels of the crop become those of the enlargement, whose centre is taken.
    crop = math.ceil(size / factor)
    enlarged = round(crop * factor)
    places = np.arange(size) + (enlarged - size) // 2
    return ((size - crop) // 2 + places * (crop - 1) / max(enlarged - 1, 1)).astype(np.float32)
