"""Weather of ImageNet-C. Functions take an RGB image (uint8) and return values of 0 to 255.

ImageNet-C overlays photographs of frozen windows, whose licence is unknown. The panes drawn here have
the mean colours and standard deviations of windows of 224 pixels in these photographs, and the
frequencies of the published code.
"""

import cv2
import numpy as np

from .blur import smear, zoom

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
# Mean colour, standard deviation of the grey value, and the share of needles in it.
PANES = (
    ((80, 149, 165), 16, 0.5),
    ((198, 202, 211), 20, 0.8),
    ((198, 202, 211), 20, 0.8),
    ((144, 159, 172), 26, 0.9),
    ((101, 113, 125), 35, 0.7),
)
# Number of fields of needles; each field has one direction.
FIELDS = 10


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
    """Add a drawn pane of frost."""
    share, pane = FROST[severity - 1]
    return share * image + pane * frost_layer(image.shape[0], image.shape[1], rng)


def frost_layer(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a pane of one of five kinds: (height, width, 3), RGB, 0 to 255."""
    colour, spread, share = PANES[rng.integers(len(PANES))]
    needles = _standard(_needles(height, width, rng))
    clouds = _standard(_smooth(4, height, width, rng).astype(np.float64))
    grey = _standard(share * needles + (1 - share) * clouds)
    return np.clip(np.array(colour) + spread * grey[..., None], 0, 255)


def _standard(layer: np.ndarray) -> np.ndarray:
    return (layer - layer.mean()) / max(layer.std(), 1e-6)


def _smooth(cells: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    cell = rng.random((cells, cells), np.float32)
    return cv2.resize(cell, (width, height), interpolation=cv2.INTER_CUBIC)


def _needles(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw fields of fine needles with feathers among them."""
    layer: np.ndarray = np.zeros((height, width), np.float32)
    for _ in range(FIELDS):
        seeds = rng.standard_normal((height, width), np.float32)
        seeds *= rng.random((height, width), np.float32) < 0.15
        needles = smear(seeds, 7, 6, rng.uniform(0, 360))
        patch = _smooth(7, height, width, rng)
        layer += needles * np.clip(patch, 0, 1) ** 4  # one field dominates where two overlap
    feathers: np.ndarray = np.zeros((height, width), np.float32)
    for _ in range(height * width // 2000):
        start = rng.uniform((0, 0), (width, height))
        _feather(feathers, start, rng.uniform(0, 2 * np.pi), rng.uniform(10, 50), rng.uniform(0, 1))
    feathers = cv2.GaussianBlur(feathers, (0, 0), 0.7)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.6)
    return _standard(layer.astype(np.float64)) + 0.4 * _standard(feathers.astype(np.float64))


def _feather(
    layer: np.ndarray, start: np.ndarray, angle: float, length: float, shade: float
) -> None:
    """Draw a needle with shorter and darker needles at 60 degrees on both sides."""
    needles = [(start, angle, length, shade)]
    for place in np.arange(2, length, 2.5).tolist():
        root = start + place * np.array([np.cos(angle), np.sin(angle)])
        for turn in (np.pi / 3, -np.pi / 3):
            needles.append((root, angle + turn, 0.4 * (length - place), 0.6 * shade))
    for root, turned, reach, grey in needles:
        end = root + reach * np.array([np.cos(turned), np.sin(turned)])
        # OpenCV takes sixteenths of a pixel.
        points = [tuple(round(16 * value) for value in point) for point in (root, end)]
        cv2.line(layer, points[0], points[1], grey, 1, cv2.LINE_8, 4)


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
    return field / field.max()


def brightness(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """Raise the value of HSV, up to 1; hue and saturation stay.

    RGB is then proportional to the value, so that no conversion is needed. Black becomes grey.
    """
    value = image.max(2, keepdims=True) / 255
    raised = np.minimum(value + BRIGHTNESS[severity - 1], 1)
    return np.where(value > 0, image * raised / np.where(value > 0, value, 1), 255 * raised)
