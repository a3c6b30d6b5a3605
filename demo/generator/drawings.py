"""The drawn classes: animals, toys and plants; vehicles; things of cloth. They look to the right.

Coordinates are units of the canvas: x to the right, y down, the object within about [-1, 1].
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .canvas import Canvas, Color, Sprite, box, ellipse, hsv, mix, rotate, smooth

_WHITE, _PALE = (250, 250, 252), (252, 250, 246)
_BLACK, _DARK, _INK = (30, 26, 34), (44, 46, 60), (40, 32, 52)
_GLASS = (120, 190, 226)


def bird(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a blue songbird with a light belly and a raised wing."""
    coat = hsv(0.59 + rng.uniform(-0.035, 0.045), 0.78, 0.88)
    deep = mix(coat, (20, 24, 80), 0.45)
    tail = [(-0.45, 0.2), (-0.98, 0.32), (-1.0, 0.5), (-0.72, 0.52), (-0.3, 0.45)]
    canvas.shape(smooth(tail), deep)
    for x in (-0.02, 0.18):
        canvas.stroke([(x, 0.62), (x - 0.03, 0.92), (x + 0.13, 0.94)], 0.045, (236, 150, 40), 0.8)
    body = smooth([(-0.62, 0.3), (-0.3, -0.06), (0.1, -0.32), (0.5, -0.2), (0.62, 0.16), (0.42, 0.58),
                   (0.0, 0.74), (-0.4, 0.6)])  # fmt: skip
    canvas.shape(body, coat)
    belly = [(0.56, 0.05), (0.5, 0.44), (0.2, 0.68), (-0.14, 0.66), (0.1, 0.42), (0.34, 0.2)]
    canvas.shape(smooth(belly), mix(_PALE, (255, 196, 120), 0.35), 0)
    canvas.volume(body, 0.3)
    crest = [(0.2, -0.62), (-0.02, -0.78), (0.16, -0.8), (0.14, -0.97), (0.48, -0.8)]
    canvas.shape(smooth(crest), deep)
    canvas.shape(smooth([(0.72, -0.58), (0.98, -0.4), (0.72, -0.28)]), (250, 170, 36))
    head = ellipse(0.44, -0.44, 0.36, 0.35)
    canvas.shape(head, coat)
    canvas.shape(smooth([(0.5, -0.36), (0.74, -0.42), (0.74, -0.24), (0.56, -0.14)]), _PALE, 0)
    canvas.volume(head, 0.3)
    canvas.shape(ellipse(0.54, -0.5, 0.1, 0.11), _PALE, 0.5)
    canvas.shape(ellipse(0.56, -0.5, 0.06, 0.07), _BLACK, 0)
    canvas.shape(ellipse(0.58, -0.53, 0.022, 0.022), _PALE, 0)
    lift = rng.uniform(-14, 14)
    wing = rotate(smooth([(0.26, 0.05), (0.05, -0.18), (-0.3, -0.2), (-0.85, -0.32), (-0.66, 0.0),
                          (-0.5, 0.2), (-0.14, 0.36), (0.16, 0.3)]), lift)  # fmt: skip
    canvas.shape(wing, mix(coat, deep, 0.45))
    for step in (0.0, 0.13, 0.26):
        feather = [(-0.68 + step, -0.2 + step), (-0.3 + step, -0.04 + 0.6 * step)]
        canvas.stroke(rotate(feather, lift), 0.035, mix(coat, _PALE, 0.7), 0)
    canvas.volume(wing, 0.25)


def teddy_bear(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a sitting teddy bear, honey to brown, with a bow tie."""
    fur = hsv(0.075 + rng.uniform(-0.012, 0.02), rng.uniform(0.6, 0.72), rng.uniform(0.62, 0.8))
    light = mix(fur, (255, 236, 200), 0.62)
    tie = hsv(rng.choice([0.98, 0.62, 0.4, 0.85]), 0.8, 0.85)
    for side in (-1, 1):
        canvas.shape(ellipse(0.42 * side, -0.8, 0.2, 0.19), fur, light=0.3)
        canvas.shape(ellipse(0.42 * side, -0.79, 0.11, 0.1), light, 0)
        canvas.shape(ellipse(0.52 * side, 0.2, 0.17, 0.32, -38 * side), fur, light=0.3)
    canvas.shape(ellipse(0, 0.4, 0.5, 0.5), fur, light=0.3)
    canvas.shape(ellipse(0, 0.46, 0.31, 0.33), light, 0)
    for side in (-1, 1):
        canvas.shape(ellipse(0.5 * side, 0.73, 0.26, 0.24), fur, light=0.3)
        canvas.shape(ellipse(0.52 * side, 0.75, 0.15, 0.14), light, 0.5)
    canvas.shape(ellipse(0, -0.4, 0.52, 0.47), fur, light=0.3)
    canvas.shape(ellipse(0, -0.23, 0.24, 0.19), light, 0)
    for side in (-1, 1):
        canvas.shape(ellipse(0.2 * side, -0.47, 0.07, 0.08), _BLACK, 0)
        canvas.shape(ellipse(0.2 * side + 0.025, -0.5, 0.025, 0.025), _PALE, 0)
        mouth = smooth([(0, -0.22), (0.06 * side, -0.14), (0.14 * side, -0.17)], False)
        canvas.stroke(mouth, 0.03, _BLACK, 0)
        knot = [(0, 0.07), (0.24 * side, -0.05), (0.28 * side, 0.09), (0.24 * side, 0.21)]
        canvas.shape(smooth(knot), tie, 0.8)
    canvas.shape(ellipse(0, -0.3, 0.09, 0.065), _BLACK, 0)
    canvas.shape(ellipse(0, 0.07, 0.07, 0.08), tie, 0.8)


def potted_plant(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a terracotta pot with green leaves and a flower."""
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
    canvas.shape(ellipse(0, -0.56, 0.17, 0.17), (255, 205, 60), 0.9, light=0.3)
    pot = [(-0.42, 0.3), (0.42, 0.3), (0.29, 0.96), (-0.29, 0.96)]
    canvas.shape(pot, clay)
    zigzag = [(x, 0.6 + 0.07 * (-1) ** step) for step, x in enumerate(np.linspace(-0.32, 0.32, 9))]
    canvas.stroke(zigzag, 0.045, mix(clay, _PALE, 0.75), 0)
    canvas.volume(pot, 0.35)
    canvas.shape(box(-0.5, 0.2, 0.5, 0.38, 0.06), mix(clay, _PALE, 0.12), light=0.3)


def _leaf(canvas: Canvas, turn: float, length: float, fill: Color) -> None:
    right = [(0.03, -0.97 * length), (0.15, -0.45 * length)]
    left = [(-x, y) for x, y in reversed(right)]
    outline = smooth([(0, 0), *left, (0, -length), *right])
    canvas.shape(rotate(outline, turn, (0, 0.3)), fill, light=0.3)
    vein = rotate([(0, -0.1), (0, -0.85 * length)], turn, (0, 0.3))
    canvas.stroke(vein, 0.03, mix(fill, (20, 60, 20), 0.4), 0)


def airplane(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a white airliner with tail, stripe and engine in one color."""
    paint = hsv(rng.choice([0.58, 0.63, 0.97, 0.02]) + rng.uniform(-0.02, 0.02), 0.82, 0.85)
    wing = mix(_WHITE, (150, 162, 184), 0.55)
    fin = smooth([(-0.94, -0.62), (-0.7, -0.64), (-0.38, -0.16), (-0.5, 0.0), (-0.84, -0.02)])
    canvas.shape([(0.2, -0.16), (-0.22, -0.58), (-0.4, -0.58), (-0.16, -0.1)], wing)
    canvas.shape(fin, paint, light=0.3)
    hull = smooth([(-0.96, -0.14), (-0.5, -0.23), (0.3, -0.26), (0.72, -0.18), (0.96, 0.04),
                   (0.78, 0.2), (0.3, 0.27), (-0.4, 0.2)])  # fmt: skip
    canvas.shape(hull, _WHITE)
    canvas.stroke(
        smooth([(-0.8, 0.0), (-0.3, 0.09), (0.4, 0.13), (0.85, 0.1)], False), 0.09, paint, 0
    )
    for x in np.linspace(-0.5, 0.42, 6):
        canvas.shape(ellipse(x, -0.08, 0.05, 0.06), _GLASS, 0.4)
    canvas.shape(smooth([(0.62, -0.16), (0.78, -0.1), (0.87, 0.0), (0.64, -0.01)]), _GLASS, 0.6)
    canvas.volume(hull, 0.4)
    stabilizer = [(-0.62, 0.02), (-0.92, 0.16), (-1.02, 0.14), (-0.84, -0.02)]
    canvas.shape(stabilizer, mix(paint, _WHITE, 0.25))
    canvas.shape(ellipse(0.02, 0.4, 0.2, 0.11), paint, light=0.4)
    near = [(0.3, 0.1), (-0.14, 0.6), (-0.36, 0.64), (-0.22, 0.34), (-0.14, 0.1)]
    canvas.shape(smooth(near), wing, light=0.35)


def bus(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a round city bus in yellow to red, with a row of windows."""
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
    width, ends = right - left, ((0.5, top + 0.06), (0.8, top + 0.06), (0.4, bottom - 0.08))
    glare = [(left + share * width, y) for share, y in (*ends, (0.1, bottom - 0.08))]
    canvas.shape(glare, mix(_GLASS, _WHITE, 0.5), 0)


def boat(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a sailing boat with two bright sails, one of them striped."""
    accent = hsv(rng.choice([0.98, 0.56, 0.45, 0.08]) + rng.uniform(-0.02, 0.02), 0.75, 0.9)
    paints = [hsv(0.06, 0.65, 0.6), hsv(0.99, 0.75, 0.7), hsv(0.6, 0.65, 0.55)]
    paint = paints[int(rng.integers(3))]
    cream = (255, 249, 232)
    canvas.stroke([(0.0, -0.92), (0.0, 0.5)], 0.05, (150, 104, 66))
    canvas.shape([(0.0, -0.98), (-0.26, -0.9), (0.0, -0.82)], accent, 0.8)
    main = [(-0.06, -0.78), (-0.4, -0.3), (-0.72, 0.3), (-0.7, 0.34), (-0.4, 0.31), (-0.06, 0.32)]
    canvas.shape(smooth(main), cream)
    for top, bottom in ((-0.42, -0.22), (0.0, 0.18)):
        ends = [(-0.1 - 0.6 * (y + 0.7), y) for y in (top, bottom)]
        canvas.shape([(-0.06, top), *ends, (-0.06, bottom)], accent, 0)
    canvas.volume(smooth(main), 0.3)
    jib = smooth([(0.06, -0.72), (0.34, -0.26), (0.78, 0.28), (0.4, 0.33), (0.07, 0.32)])
    canvas.shape(jib, mix(cream, accent, 0.85), light=0.35)
    hull = smooth([(-0.84, 0.46), (-0.4, 0.5), (0.3, 0.5), (0.97, 0.4), (0.72, 0.72), (0.4, 0.9),
                   (-0.5, 0.9), (-0.74, 0.74)])  # fmt: skip
    canvas.shape(hull, paint)
    rail = smooth([(-0.78, 0.56), (-0.3, 0.6), (0.3, 0.6), (0.84, 0.53)], False)
    canvas.stroke(rail, 0.06, mix(paint, _WHITE, 0.75), 0)
    canvas.volume(hull, 0.35)
    for x in (-0.4, 0.0, 0.4):
        canvas.shape(ellipse(x, 0.73, 0.07, 0.07), _GLASS, 0.6)


def umbrella(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw an open umbrella from the side: panels in two colors, scalloped rim, hooked handle."""
    hue = rng.choice([0.97, 0.9, 0.78, 0.47]) + rng.uniform(-0.02, 0.02)
    dark, steel = hsv(hue, 0.82, 0.86), (196, 200, 208)
    light = mix(dark, _PALE, 0.86) if rng.random() < 0.7 else hsv(hue + 0.16, 0.7, 0.98)
    handle = [(0.0, 0.62), (0.05, 0.78), (0.17, 0.84), (0.29, 0.76), (0.3, 0.62)]
    canvas.stroke([(0, -0.1), (0, 0.62)], 0.06, steel)
    canvas.stroke(smooth(handle, closed=False), 0.1, (150, 92, 52))
    canvas.stroke([(0, -0.8), (0, -0.94)], 0.06, steel)
    edges = np.linspace(-1, 1, 6)
    for index in range(5):
        # A rib is half an ellipse. All ribs meet at the top.
        left, right = (_rib(edge) for edge in edges[index : index + 2])
        middle = (edges[index] + edges[index + 1]) / 2
        scallop = [tuple(left[-1]), (0.98 * middle, -0.14), tuple(right[-1])]
        panel = np.concatenate([left, smooth(scallop, closed=False), right[::-1]])
        canvas.shape(panel, dark if index % 2 == 0 else light)
    canvas.volume(np.concatenate([_rib(-1), _rib(1)[::-1]]), 0.36)


def _rib(edge: float) -> np.ndarray:
    angle = np.linspace(np.pi / 2, 0, 14)
    return np.stack([edge * np.cos(angle), 0.02 - 0.86 * np.sin(angle)], axis=1)


def kite(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a diamond of four panels in two colors, with a waving tail of bows."""
    hue = rng.choice([0.3, 0.84, 0.52, 0.14]) + rng.uniform(-0.03, 0.03)
    first, second = hsv(hue, 0.82, 0.9), hsv(hue + rng.choice([0.42, 0.55]), 0.78, 0.97)
    sway = rng.uniform(0.14, 0.24)
    tail = smooth([(0.0, 0.3), (-sway, 0.54), (sway, 0.8), (-0.4 * sway, 1.04)], closed=False)
    canvas.stroke(tail, 0.06, mix(first, _PALE, 0.5))
    for index, color in ((8, second), (16, first), (24, second)):
        x, y = tail[index]
        for side in (-1, 1):
            bow = [(x, y), (x + 0.17 * side, y - 0.09), (x + 0.17 * side, y + 0.09)]
            canvas.shape(bow, color, 0.8)
        canvas.shape(ellipse(x, y, 0.05, 0.05), _PALE, 0.6)
    cross, diamond = (0.0, -0.4), [(0, -0.98), (0.66, -0.4), (0, 0.36), (-0.66, -0.4)]
    for index in range(4):
        start, stop = diamond[index], diamond[(index + 1) % 4]
        canvas.shape([cross, start, stop], (first, second)[index % 2], 0.7)
    canvas.volume(diamond, 0.34)
    canvas.stroke([*diamond, diamond[0]], 0.02, (60, 44, 60), 0)
    canvas.shape(ellipse(0, -0.4, 0.11, 0.11), _PALE, 0.7)


class Thing(NamedTuple):
    """A class of drawn objects, with its names and indices in the public datasets."""

    draw: Callable[[Canvas, np.random.Generator], None]
    places: set[str]
    tilt: float  # the largest rotation in degrees
    wnid: str | None = None  # ImageNet-1k's folder; None if it has no such class
    imagenet: int | None = None  # 0 to 999
    voc: int = 0  # 1 to 20; 0 if it has no such class
    ade: int = 0  # 1 to 150, as in the challenge; 0 is ADE20K's "other"


# By COCO's names. The official configs (80, 1000, 21 and 150 classes) read the drawn images unchanged.
# The order is COCO's: these classes alone and all 80 names give labels of the same order.
THINGS = {
    'airplane': Thing(airplane, {'sky'}, 22, 'n02690373', 404, voc=1, ade=91),
    'bus': Thing(bus, {'road'}, 3, 'n04146614', 779, voc=6, ade=81),
    'boat': Thing(boat, {'water'}, 8, 'n04612504', 914, voc=4, ade=77),
    'bird': Thing(bird, {'ground', 'road'}, 14, 'n01580077', 17, voc=3, ade=127),
    'umbrella': Thing(umbrella, {'ground', 'road'}, 24, 'n04507155', 879),
    'kite': Thing(kite, {'sky'}, 32),
    'potted plant': Thing(potted_plant, {'ground', 'road'}, 4, 'n03991062', 738, voc=16, ade=18),
    'teddy bear': Thing(teddy_bear, {'ground'}, 8, 'n04399382', 850, ade=109),
}


def draw(name: str, side: float, rng: np.random.Generator) -> Sprite:
    """Draw an object with random pose and colors; its longer side is about ``side`` pixels."""
    thing = THINGS[name]
    turn, stretch = rng.uniform(-thing.tilt, thing.tilt), rng.uniform(0.88, 1.14)
    canvas = Canvas(side, _INK, turn, stretch, mirror=rng.random() < 0.5)
    thing.draw(canvas, rng)
    return canvas.sprite()
