"""Table of drawings: from a class name and a random generator to a cut-out image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Color, Pose, Sprite
from .creatures import bird, potted_plant, teddy_bear
from .fabrics import kite, umbrella
from .vehicles import airplane, boat, bus


@dataclass(frozen=True)
class Drawing:
    """How to draw a class.

    Attributes:
        draw: draws it, with the details left to the random generator.
        places: where it can be: 'sky', 'ground', 'road', 'water'.
        tilt: largest turn to either side, in degrees.
    """

    draw: Callable[[Canvas, np.random.Generator], None]
    places: frozenset[str]
    tilt: float


DRAWINGS = {
    'airplane': Drawing(airplane, frozenset({'sky'}), 22),
    'bus': Drawing(bus, frozenset({'road'}), 3),
    'boat': Drawing(boat, frozenset({'water'}), 8),
    'bird': Drawing(bird, frozenset({'ground', 'road'}), 14),
    'umbrella': Drawing(umbrella, frozenset({'ground', 'road'}), 24),
    'kite': Drawing(kite, frozenset({'sky'}), 32),
    'potted plant': Drawing(potted_plant, frozenset({'ground', 'road'}), 4),
    'teddy bear': Drawing(teddy_bear, frozenset({'ground'}), 8),
}
_INK: Color = (40, 32, 52)


def draw(name: str, side: float, rng: np.random.Generator) -> Sprite:
    """Object of the class with random pose and colours; its longer side is about `side` pixels."""
    drawing = DRAWINGS[name]
    pose = Pose(
        side=side,
        turn=float(rng.uniform(-drawing.tilt, drawing.tilt)),
        stretch=float(rng.uniform(0.88, 1.14)),
        mirror=bool(rng.random() < 0.5),
    )
    canvas = Canvas(pose, _INK)
    drawing.draw(canvas, rng)
    return canvas.sprite()
