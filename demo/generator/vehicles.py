"""Drawings of things that carry people: airplane, bus, boat. They look to the right."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, box, ellipse, hsv, mix, smooth

_WHITE = (250, 250, 252)
_GLASS = (120, 190, 226)
_DARK = (44, 46, 60)


def airplane(canvas: Canvas, rng: np.random.Generator) -> None:
    """White airliner with tail, stripe and engine in one colour."""
    paint = hsv(rng.choice([0.58, 0.63, 0.97, 0.02]) + rng.uniform(-0.02, 0.02), 0.82, 0.85)
    wing = mix(_WHITE, (150, 162, 184), 0.55)
    fin = smooth([(-0.94, -0.62), (-0.7, -0.64), (-0.38, -0.16), (-0.5, 0.0), (-0.84, -0.02)])
    canvas.shape([(0.2, -0.16), (-0.22, -0.58), (-0.4, -0.58), (-0.16, -0.1)], wing)
    canvas.shape(fin, paint)
    canvas.volume(fin, 0.3)
    hull = smooth(
        [
            (-0.96, -0.14),
            (-0.5, -0.23),
            (0.3, -0.26),
            (0.72, -0.18),
            (0.96, 0.04),
            (0.78, 0.2),
            (0.3, 0.27),
            (-0.4, 0.2),
        ]
    )
    canvas.shape(hull, _WHITE)
    canvas.mark(smooth([(-0.8, 0.0), (-0.3, 0.09), (0.4, 0.13), (0.85, 0.1)], False), 0.09, paint)
    for x in np.linspace(-0.5, 0.42, 6):
        canvas.shape(ellipse(x, -0.08, 0.05, 0.06), _GLASS, 0.4)
    windscreen = smooth([(0.62, -0.16), (0.78, -0.1), (0.87, 0.0), (0.64, -0.01)])
    canvas.shape(windscreen, _GLASS, 0.6)
    canvas.volume(hull, 0.4)
    stabiliser = [(-0.62, 0.02), (-0.92, 0.16), (-1.02, 0.14), (-0.84, -0.02)]
    canvas.shape(stabiliser, mix(paint, _WHITE, 0.25))
    engine = ellipse(0.02, 0.4, 0.2, 0.11)
    canvas.shape(engine, paint)
    canvas.volume(engine, 0.4)
    near = smooth([(0.3, 0.1), (-0.14, 0.6), (-0.36, 0.64), (-0.22, 0.34), (-0.14, 0.1)])
    canvas.shape(near, wing)
    canvas.volume(near, 0.35)


def bus(canvas: Canvas, rng: np.random.Generator) -> None:
    """Round city bus in yellow to red, with a row of windows."""
    paint = hsv(rng.choice([0.13, 0.11, 0.04]) + rng.uniform(-0.02, 0.02), 0.9, 0.97)
    trim = mix(paint, _WHITE, 0.85)
    body = box(-0.98, -0.66, 0.98, 0.42, 0.2)
    canvas.shape(body, paint)
    canvas.shape(box(-0.9, -0.74, 0.7, -0.62, 0.05), trim, 0.8)
    canvas.shape(box(-0.97, 0.1, 0.97, 0.22, 0.02), trim, 0)
    for left in (-0.86, -0.47, -0.08):
        _window(canvas, left, -0.48, left + 0.32, -0.02)
    _window(canvas, 0.33, -0.48, 0.56, 0.36)
    _window(canvas, 0.66, -0.5, 0.97, 0.02)
    canvas.volume(body, 0.32)
    canvas.shape(ellipse(0.9, 0.22, 0.07, 0.08), (255, 246, 190), 0.7)
    canvas.shape(box(-1.02, 0.34, 1.02, 0.46, 0.05), _DARK, 0.8)
    for x in (-0.56, 0.52):
        canvas.shape(ellipse(x, 0.44, 0.25, 0.25), _DARK)
        canvas.shape(ellipse(x, 0.44, 0.13, 0.13), (206, 210, 218), 0.6)
        canvas.shape(ellipse(x, 0.44, 0.05, 0.05), _DARK, 0)


def _window(canvas: Canvas, left: float, top: float, right: float, bottom: float) -> None:
    canvas.shape(box(left, top, right, bottom, 0.06), _GLASS, 0.7)
    width = right - left
    glare = [
        (left + 0.5 * width, top + 0.06),
        (left + 0.8 * width, top + 0.06),
        (left + 0.4 * width, bottom - 0.08),
        (left + 0.1 * width, bottom - 0.08),
    ]
    canvas.shape(glare, mix(_GLASS, _WHITE, 0.5), 0)


def boat(canvas: Canvas, rng: np.random.Generator) -> None:
    """Sailing boat: two bright sails, one with stripes, a wooden or painted hull."""
    accent = hsv(rng.choice([0.98, 0.56, 0.45, 0.08]) + rng.uniform(-0.02, 0.02), 0.75, 0.9)
    hull_paint = rng.choice([hsv(0.06, 0.65, 0.6), hsv(0.99, 0.75, 0.7), hsv(0.6, 0.65, 0.55)])
    cream = (255, 249, 232)
    canvas.stroke([(0.0, -0.92), (0.0, 0.5)], 0.05, (150, 104, 66))
    canvas.shape([(0.0, -0.98), (-0.26, -0.9), (0.0, -0.82)], accent, 0.8)
    main = smooth(
        [(-0.06, -0.78), (-0.4, -0.3), (-0.72, 0.3), (-0.7, 0.34), (-0.4, 0.31), (-0.06, 0.32)]
    )
    canvas.shape(main, cream)
    for top, bottom in ((-0.42, -0.22), (0.0, 0.18)):
        reach = [
            (-0.06, top),
            (-0.1 - 0.6 * (top + 0.7), top),
            (-0.1 - 0.6 * (bottom + 0.7), bottom),
            (-0.06, bottom),
        ]
        canvas.shape(reach, accent, 0)
    canvas.volume(main, 0.3)
    jib = smooth([(0.06, -0.72), (0.34, -0.26), (0.78, 0.28), (0.4, 0.33), (0.07, 0.32)])
    canvas.shape(jib, mix(cream, accent, 0.85))
    canvas.volume(jib, 0.35)
    hull = smooth(
        [
            (-0.84, 0.46),
            (-0.4, 0.5),
            (0.3, 0.5),
            (0.97, 0.4),
            (0.72, 0.72),
            (0.4, 0.9),
            (-0.5, 0.9),
            (-0.74, 0.74),
        ]
    )
    hull_paint = tuple(int(part) for part in hull_paint)
    canvas.shape(hull, hull_paint)
    rail = smooth([(-0.78, 0.56), (-0.3, 0.6), (0.3, 0.6), (0.84, 0.53)], False)
    canvas.mark(rail, 0.06, mix(hull_paint, _WHITE, 0.75))
    canvas.volume(hull, 0.35)
    for x in (-0.4, 0.0, 0.4):
        canvas.shape(ellipse(x, 0.73, 0.07, 0.07), _GLASS, 0.6)
