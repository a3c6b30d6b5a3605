"""A small vector canvas on Pillow: outlined shapes, soft light and an antialiased mask."""

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Color = tuple[int, ...]
Points = Sequence[tuple[float, float]] | np.ndarray

# The canvas spans [-_REACH, _REACH] units, with room for rotated objects and outlines.
_REACH = 1.5
# Radii of soft discs are rounded to a multiple of this, so that few are computed.
_DISC_STEP = 16
# A line needs a round joint where bend (radians) times width (pixels) is larger than this.
_NOTCH = 2.5


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Return RGB (0 to 255) of a hue in turns, and of saturation and value from 0 to 1."""
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def mix(first: Color, second: Color, share: float) -> Color:
    """Mix two colors; ``share`` (0..1) is that of the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    """Return the polygon of an ellipse around (x, y), rotated by ``turn`` degrees clockwise."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return rotate(np.stack([rx * np.cos(angle), ry * np.sin(angle)], axis=1), turn, (x, y))


def rotate(points: Points, degrees: float, to: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Rotate points around the origin, clockwise on the image (y points down), then move it."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(points, dtype=float) @ np.array([[cos, sin], [-sin, cos]]) + np.array(to)


def box(left: float, top: float, right: float, bottom: float, radius: float) -> np.ndarray:
    """Return the polygon of a rectangle with round corners."""
    angle = np.radians(np.linspace(0, 90, 7))
    arc = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    left, top, right, bottom = left + radius, top + radius, right - radius, bottom - radius
    corners = [(right, top), (right, bottom), (left, bottom), (left, top)]
    turns = (-90, 0, 90, 180)
    return np.concatenate([rotate(arc, turn, to) for to, turn in zip(corners, turns, strict=True)])


def smooth(points: Points, closed: bool = True) -> np.ndarray:
    """Return the Catmull-Rom curve through points, with 8 points for each piece."""
    knots = np.asarray(points, dtype=float)
    if not closed:
        knots = np.concatenate([knots[:1], knots, knots[-1:]])
    before, start, stop, after = (np.roll(knots, by, axis=0)[:, None] for by in (1, 0, -1, -2))
    t = np.linspace(0, 1, 8, endpoint=False)[None, :, None]
    curve = 0.5 * (
        2 * start
        + (stop - before) * t
        + (2 * before - 5 * start + 4 * stop - after) * t**2
        + (3 * start - before - 3 * stop + after) * t**3
    )
    if closed:
        return curve.reshape(-1, 2)
    return np.concatenate([curve[1:-2].reshape(-1, 2), knots[-1:]])


class Sprite(NamedTuple):
    """A drawn object: ``rgb`` (H, W, 3) and its mask ``alpha`` (H, W), both uint8."""

    rgb: np.ndarray
    alpha: np.ndarray


class Canvas:
    """Draw shapes given in units: x to the right, y down, the object within about [-1, 1].

    A dark outline separates every shape from the background. Light and shade change colors, not the
    mask. ``side`` is the size of two units in pixels, ``ink`` the color of outlines and shade, ``turn``
    the clockwise rotation in degrees, and ``stretch`` width over height, relative to the drawing.
    """

    def __init__(self, side: float, ink: Color, turn: float, stretch: float, mirror: bool) -> None:
        self._ink, self._turn, self._mirror = ink, turn, mirror
        self._axes = (stretch**0.5, 1 / stretch**0.5)
        # Small drawings need finer edges; large ones take the most time.
        self._fine = fine = 4 if side < 48 else 3 if side < 96 else 2
        self._scale = side / 2 * fine
        self._middle = half = int(np.ceil(side / 2 * _REACH)) * fine
        # Antialiasing blends the color outside the mask into the rim: it is that of the outline.
        self._color = Image.new('RGB', (2 * half, 2 * half), ink)
        self._mask = Image.new('L', self._color.size, 0)
        self._pen, self._mask_pen = ImageDraw.Draw(self._color), ImageDraw.Draw(self._mask)
        self._line = max(1.5 * fine, 0.035 * self._scale)

    def _pixels(self, points: Points) -> np.ndarray:
        placed = np.asarray(points, dtype=float) * self._axes
        if self._mirror:
            placed = placed * (-1, 1)
        return (rotate(placed, self._turn) * self._scale + self._middle).round(2)

    def shape(self, points: Points, fill: Color, outline: float = 1.0, light: float = 0.0) -> None:
        """Fill a polygon; ``outline`` is the relative width of its rim, ``light`` as in ``volume``."""
        corners = self._pixels(points)
        flat = corners.ravel().tolist()
        self._pen.polygon(flat, fill=fill)
        self._mask_pen.polygon(flat, fill=255)
        if outline:
            self._trace([*corners, corners[0]], round(self._line * outline), self._ink)
        if light:
            self.volume(points, light)

    def stroke(self, points: Points, width: float, fill: Color, outline: float = 1.0) -> None:
        """Draw an open line with round ends; ``width`` is in units, without the rim."""
        corners = self._pixels(points)
        inner = max(1, round(width * self._scale))
        if outline:
            self._trace(corners, inner + round(self._line * outline), self._ink)
        self._trace(corners, inner, fill)

    def _trace(self, line: Points, width: int, fill: Color) -> None:
        # Pillow leaves notches where wide lines meet at an angle, and its own joints are slow on long
        # curves: round joints are drawn at ends and sharp corners only.
        corners = np.asarray(line)
        step = np.diff(corners, axis=0)
        heading = np.arctan2(step[:, 1], step[:, 0])
        bend = np.abs((np.diff(heading) + np.pi) % (2 * np.pi) - np.pi)
        joints = np.concatenate([corners[1:-1][bend * width > _NOTCH], corners[[0, -1]]])
        discs = np.concatenate([joints - width / 2, joints + width / 2], axis=1).tolist()
        flat = corners.ravel().tolist()
        for pen, color in ((self._pen, fill), (self._mask_pen, 255)):
            pen.line(flat, fill=color, width=width)
            for disc in discs:
                pen.ellipse(disc, color)

    def volume(self, within: Points, power: float) -> None:
        """Draw light at the upper left and shade at the lower right of a polygon."""
        corners = np.asarray(within, dtype=float)
        low, high = corners.min(axis=0), corners.max(axis=0)
        radius = 0.75 * float((high - low).max())
        # The light stays on the left of the image if the drawing is mirrored.
        middle, span = (low + high) / 2, (high - low) * ((-1, 1) if self._mirror else (1, 1))
        self._glow(within, middle + span * (0.45, 0.5), radius, self._ink, power)
        self._glow(within, middle - span * (0.25, 0.3), 0.8 * radius, (255, 255, 255), power)

    def _glow(
        self, within: Points, center: np.ndarray, radius: float, color: Color, power: float
    ) -> None:
        """Draw a soft disc of light inside a polygon; ``power`` is the opacity of its center."""
        corners = self._pixels(within)
        corner = np.floor(corners.min(axis=0))
        columns, rows = (np.ceil(corners.max(axis=0)) - corner + 1).astype(int).tolist()
        clip = Image.new('L', (columns, rows), 0)
        ImageDraw.Draw(clip).polygon((corners - corner).ravel().tolist(), fill=round(255 * power))
        disc = _soft_disc(max(1, round(radius * self._scale / _DISC_STEP)) * _DISC_STEP)
        light = Image.new('L', clip.size, 0)
        x, y = (self._pixels([center])[0] - corner - disc.width / 2).round().astype(int).tolist()
        light.paste(disc, (x, y))
        place = (int(corner[0]), int(corner[1]))
        self._color.paste(color, place, ImageChops.multiply(clip, light))

    def sprite(self) -> Sprite:
        """Return the drawing at its final size, cropped to the mask."""
        alpha = self._mask.reduce(self._fine)
        rgb, area = self._color.reduce(self._fine), alpha.getbbox()
        return Sprite(np.asarray(rgb.crop(area)), np.asarray(alpha.crop(area)))


@lru_cache(maxsize=64)
def _soft_disc(radius: int) -> Image.Image:
    axis = (np.arange(2 * radius) + 0.5) / radius - 1
    fall = np.clip(1 - np.hypot(*np.meshgrid(axis, axis)), 0, 1)
    return Image.fromarray((255 * fall * fall * (3 - 2 * fall)).round().astype(np.uint8))
