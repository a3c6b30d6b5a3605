"""Drawings of living and cuddly things: bird, teddy bear, potted plant. They look to the right."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Color, box, ellipse, hsv, mix, rotate, shift, smooth

_WHITE = (252, 250, 246)
_BLACK = (30, 26, 34)


def bird(canvas: Canvas, rng: np.random.Generator) -> None:
    """Blue jay-like songbird with a light belly and a raised wing."""
    coat = hsv(0.59 + rng.uniform(-0.035, 0.045), 0.78, 0.88)
    deep = mix(coat, (20, 24, 80), 0.45)
    tail = smooth([(-0.45, 0.2), (-0.98, 0.32), (-1.0, 0.5), (-0.72, 0.52), (-0.3, 0.45)])
    canvas.shape(tail, deep)
    for x in (-0.02, 0.18):
        canvas.stroke([(x, 0.62), (x - 0.03, 0.92), (x + 0.13, 0.94)], 0.045, (236, 150, 40), 0.8)
    body = smooth(
        [
            (-0.62, 0.3),
            (-0.3, -0.06),
            (0.1, -0.32),
            (0.5, -0.2),
            (0.62, 0.16),
            (0.42, 0.58),
            (0.0, 0.74),
            (-0.4, 0.6),
        ]
    )
    canvas.shape(body, coat)
    belly = smooth(
        [(0.56, 0.05), (0.5, 0.44), (0.2, 0.68), (-0.14, 0.66), (0.1, 0.42), (0.34, 0.2)]
    )
    canvas.shape(belly, mix(_WHITE, (255, 196, 120), 0.35), 0)
    canvas.volume(body, 0.3)
    crest = smooth([(0.2, -0.62), (-0.02, -0.78), (0.16, -0.8), (0.14, -0.97), (0.48, -0.8)])
    canvas.shape(crest, deep)
    beak = smooth([(0.72, -0.58), (0.98, -0.4), (0.72, -0.28)])
    canvas.shape(beak, (250, 170, 36))
    head = ellipse(0.44, -0.44, 0.36, 0.35)
    canvas.shape(head, coat)
    canvas.shape(smooth([(0.5, -0.36), (0.74, -0.42), (0.74, -0.24), (0.56, -0.14)]), _WHITE, 0)
    canvas.volume(head, 0.3)
    canvas.shape(ellipse(0.54, -0.5, 0.1, 0.11), _WHITE, 0.5)
    canvas.shape(ellipse(0.56, -0.5, 0.06, 0.07), _BLACK, 0)
    canvas.shape(ellipse(0.58, -0.53, 0.022, 0.022), _WHITE, 0)
    lift = rng.uniform(-14, 14)
    wing = rotate(
        smooth(
            [
                (0.26, 0.05),
                (0.05, -0.18),
                (-0.3, -0.2),
                (-0.85, -0.32),
                (-0.66, 0.0),
                (-0.5, 0.2),
                (-0.14, 0.36),
                (0.16, 0.3),
            ]
        ),
        lift,
    )
    canvas.shape(wing, mix(coat, deep, 0.45))
    for step in (0.0, 0.13, 0.26):
        feather = [(-0.68 + step, -0.2 + step), (-0.3 + step, -0.04 + 0.6 * step)]
        canvas.mark(rotate(feather, lift), 0.035, mix(coat, _WHITE, 0.7))
    canvas.volume(wing, 0.25)


def teddy_bear(canvas: Canvas, rng: np.random.Generator) -> None:
    """Sitting teddy bear, honey to brown, with a bow tie."""
    fur = hsv(0.075 + rng.uniform(-0.012, 0.02), rng.uniform(0.6, 0.72), rng.uniform(0.62, 0.8))
    light = mix(fur, (255, 236, 200), 0.62)
    tie = hsv(rng.choice([0.98, 0.62, 0.4, 0.85]), 0.8, 0.85)
    for side in (-1, 1):
        _ball(canvas, ellipse(0.42 * side, -0.8, 0.2, 0.19), fur)
        canvas.shape(ellipse(0.42 * side, -0.79, 0.11, 0.1), light, 0)
        _ball(canvas, ellipse(0.52 * side, 0.2, 0.17, 0.32, -38 * side), fur)
    _ball(canvas, ellipse(0, 0.4, 0.5, 0.5), fur)
    canvas.shape(ellipse(0, 0.46, 0.31, 0.33), light, 0)
    for side in (-1, 1):
        _ball(canvas, ellipse(0.5 * side, 0.73, 0.26, 0.24), fur)
        canvas.shape(ellipse(0.52 * side, 0.75, 0.15, 0.14), light, 0.5)
    _ball(canvas, ellipse(0, -0.4, 0.52, 0.47), fur)
    canvas.shape(ellipse(0, -0.23, 0.24, 0.19), light, 0)
    for side in (-1, 1):
        canvas.shape(ellipse(0.2 * side, -0.47, 0.07, 0.08), _BLACK, 0)
        canvas.shape(ellipse(0.2 * side + 0.025, -0.5, 0.025, 0.025), _WHITE, 0)
        canvas.mark(
            smooth([(0, -0.22), (0.06 * side, -0.14), (0.14 * side, -0.17)], False), 0.03, _BLACK
        )
        knot = [(0, 0.07), (0.24 * side, -0.05), (0.28 * side, 0.09), (0.24 * side, 0.21)]
        canvas.shape(smooth(knot), tie, 0.8)
    canvas.shape(ellipse(0, -0.3, 0.09, 0.065), _BLACK, 0)
    canvas.shape(ellipse(0, 0.07, 0.07, 0.08), tie, 0.8)


def _ball(canvas: Canvas, points: np.ndarray, fill: Color) -> None:
    canvas.shape(points, fill)
    canvas.volume(points, 0.3)


def potted_plant(canvas: Canvas, rng: np.random.Generator) -> None:
    """Terracotta pot with green leaves and a flower of bright petals."""
    green = hsv(0.33 + rng.uniform(-0.04, 0.05), 0.72, 0.62)
    petal = hsv(rng.choice([0.93, 0.98, 0.84, 0.76]) + rng.uniform(-0.02, 0.02), 0.62, 0.96)
    clay = hsv(0.045 + rng.uniform(-0.01, 0.015), 0.68, 0.8)
    canvas.stroke(smooth([(0, 0.2), (0.03, -0.1), (0, -0.4)], False), 0.07, green)
    for turn, length in ((-78, 0.72), (80, 0.72), (-48, 0.86), (50, 0.86)):
        paint = mix(green, (190, 230, 90), rng.uniform(0, 0.3))
        _leaf(canvas, turn + rng.uniform(-8, 8), length * rng.uniform(0.92, 1.08), paint)
    count = int(rng.integers(6, 9))
    for index in range(count):
        x, y = rotate([(0, -0.26)], 360 * index / count)[0]
        canvas.shape(ellipse(x, y - 0.56, 0.14, 0.2, 360 * index / count), petal, 0.9)
    canvas.volume(ellipse(0, -0.56, 0.44, 0.44), 0.22)
    center = ellipse(0, -0.56, 0.17, 0.17)
    canvas.shape(center, (255, 205, 60), 0.9)
    canvas.volume(center, 0.3)
    pot = [(-0.42, 0.3), (0.42, 0.3), (0.29, 0.96), (-0.29, 0.96)]
    canvas.shape(pot, clay)
    zigzag = [(x, 0.6 + 0.07 * (-1) ** step) for step, x in enumerate(np.linspace(-0.32, 0.32, 9))]
    canvas.mark(zigzag, 0.045, mix(clay, _WHITE, 0.75))
    canvas.volume(pot, 0.35)
    rim = box(-0.5, 0.2, 0.5, 0.38, 0.06)
    canvas.shape(rim, mix(clay, _WHITE, 0.12))
    canvas.volume(rim, 0.3)


def _leaf(canvas: Canvas, turn: float, length: float, fill: Color) -> None:
    outline = smooth(
        [
            (0, 0),
            (-0.15, -0.45 * length),
            (-0.03, -0.97 * length),
            (0, -length),
            (0.03, -0.97 * length),
            (0.15, -0.45 * length),
        ]
    )
    leaf = shift(rotate(outline, turn), 0, 0.3)
    canvas.shape(leaf, fill)
    canvas.volume(leaf, 0.3)
    vein = shift(rotate([(0, -0.1), (0, -0.85 * length)], turn), 0, 0.3)
    canvas.mark(vein, 0.03, mix(fill, (20, 60, 20), 0.4))
