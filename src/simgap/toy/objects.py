"""Define ten classes of objects. Each object consists of filled outlines with random sizes and positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """A filled outline, which is one part of an object.

    Attributes:
        role: Name of the colour in the palette, for example `main`.
        points: Corners (x, y) of the outline, float64 [n, 2]. The unit is half the size of the object, and y points
            down.
    """

    role: str
    points: Points


def _polygon(role: str, *points: tuple[float, float]) -> Part:
    return Part(role, np.array(points, np.float64))


def _box(role: str, left: float, top: float, right: float, bottom: float) -> Part:
    return _polygon(role, (left, top), (right, top), (right, bottom), (left, bottom))


def _arc(x: float, y: float, width: float, height: float, start: float = 0.0, end: float = 360.0) -> Points:
    angle = np.radians(np.linspace(start, end, 20))
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=1)


def _ellipse(role: str, x: float, y: float, width: float, height: float) -> Part:
    return Part(role, _arc(x, y, width, height))


def _band(role: str, outer: Points, inner: Points) -> Part:
    return Part(role, np.concatenate([outer, inner[::-1]]))


def _house(random: np.random.Generator) -> list[Part]:
    width, eaves = random.uniform(0.6, 0.85), random.uniform(-0.25, 0.1)
    door = random.uniform(-0.4, 0.25) * width
    parts = [_box("dark", 0.35 * width, -0.8, 0.6 * width, eaves)] if random.random() < 0.6 else []
    parts += [
        _box("main", -width, eaves, width, 0.9),
        _polygon("accent", (-width - 0.15, eaves), (random.uniform(-0.2, 0.2), -0.95), (width + 0.15, eaves)),
        _box("dark", door, 0.35, door + 0.3, 0.9),
        _box("light", -0.8 * width, eaves + 0.15, -0.45 * width, eaves + 0.42),
        _box("light", 0.45 * width, eaves + 0.15, 0.8 * width, eaves + 0.42),
    ]
    return parts


def _tree(random: np.random.Generator) -> list[Part]:
    trunk = random.uniform(0.1, 0.18)
    parts = [_box("wood", -trunk, 0.1, trunk, 0.95)]
    if random.random() < 0.5:
        for top, width in ((-0.1, 0.75), (-0.5, 0.6), (-0.95, 0.42)):
            parts.append(_polygon("main", (-width, top + 0.6), (0, top), (width, top + 0.6)))
    else:
        for x, y, size in (
            (-0.4, -0.1, 0.42),
            (0.4, -0.1, 0.42),
            (0, -0.5, 0.5),
            (random.uniform(-0.2, 0.2), -0.15, 0.4),
        ):
            parts.append(_ellipse("main", x, y, size, size * random.uniform(0.85, 1.05)))
        parts += [
            _ellipse("accent", random.uniform(-0.45, 0.3), random.uniform(-0.45, 0.3), 0.1, 0.1)
            for _ in range(random.integers(0, 4))
        ]
    return parts


def _car(random: np.random.Generator) -> list[Part]:
    roof, front, wheel = random.uniform(-0.55, -0.35), random.uniform(-0.6, -0.35), random.uniform(0.2, 0.27)
    return [
        _polygon("main", (front - 0.15, 0.0), (front + 0.15, roof), (0.45, roof), (0.75, 0.0)),
        _polygon("light", (front + 0.02, -0.04), (front + 0.22, roof + 0.1), (0.0, roof + 0.1), (0.0, -0.04)),
        _polygon("light", (0.08, -0.04), (0.08, roof + 0.1), (0.4, roof + 0.1), (0.58, -0.04)),
        _polygon("main", (-1.0, 0.1), (-0.85, -0.03), (0.95, -0.03), (1.0, 0.42), (-1.0, 0.42)),
        _box("accent", -1.0, 0.28, 1.0, 0.36),
        *(_ellipse("dark", x, 0.42, wheel, wheel) for x in (-0.55, 0.55)),
        *(_ellipse("light", x, 0.42, wheel * 0.45, wheel * 0.45) for x in (-0.55, 0.55)),
    ]


def _fish(random: np.random.Generator) -> list[Part]:
    height, tail = random.uniform(0.32, 0.5), random.uniform(0.3, 0.5)
    parts = [
        _polygon("accent", (0.5, 0.0), (1.0, -tail), (0.85, 0.0), (1.0, tail)),
        _polygon("accent", (-0.2, -height * 0.8), (0.15, -height - 0.3), (0.35, -height * 0.7)),
        _ellipse("main", -0.15, 0.0, 0.75, height),
        _polygon("accent", (-0.1, 0.05), (0.25, 0.25), (0.2, -0.05)),
        _ellipse("light", -0.6, -0.1, 0.11, 0.11),
        _ellipse("dark", -0.62, -0.1, 0.05, 0.05),
    ]
    return parts + [
        _box("light", x, -height * 0.6, x + 0.06, height * 0.6) for x in (0.12, 0.32)[: random.integers(0, 3)]
    ]


def _umbrella(random: np.random.Generator) -> list[Part]:
    panels = int(random.integers(4, 7))
    edge = np.linspace(180, 360, panels + 1)
    top = np.array([[0.0, -0.75]])
    parts = [_box("dark", -0.04, -0.9, 0.04, 0.75)]
    for number in range(panels):
        rim = _arc(0, 0.1, 0.95, 0.85, edge[number], edge[number + 1])
        parts.append(Part("main" if number % 2 == 0 else "accent", np.concatenate([top, rim])))
    parts.append(_band("dark", _arc(-0.14, 0.72, 0.18, 0.2, 0, 180), _arc(-0.14, 0.72, 0.1, 0.12, 0, 180)))
    return parts


def _mushroom(random: np.random.Generator) -> list[Part]:
    stem, cap = random.uniform(0.2, 0.34), random.uniform(0.7, 0.95)
    parts = [
        _polygon("light", (-stem * 0.8, 0.0), (stem * 0.8, 0.0), (stem * 1.2, 0.9), (-stem * 1.2, 0.9)),
        Part("main", _arc(0, 0.1, cap, random.uniform(0.75, 0.95), 180, 360)),
    ]
    for x in np.linspace(-0.55, 0.55, int(random.integers(3, 6))):
        parts.append(_ellipse("accent", x * cap, random.uniform(-0.45, -0.1), 0.1, 0.1))
    return parts


def _sailboat(random: np.random.Generator) -> list[Part]:
    mast, deck = random.uniform(-0.15, 0.1), random.uniform(0.35, 0.45)
    return [
        _box("dark", mast - 0.035, -0.95, mast + 0.035, deck),
        _polygon("light", (mast + 0.07, -0.9), (mast + 0.07, deck - 0.1), (random.uniform(0.65, 0.85), deck - 0.1)),
        _polygon("accent", (mast - 0.07, -0.75), (mast - 0.07, deck - 0.1), (random.uniform(-0.75, -0.5), deck - 0.1)),
        _polygon("main", (-0.95, deck), (0.95, deck), (0.6, 0.85), (-0.65, 0.85)),
    ]


def _butterfly(random: np.random.Generator) -> list[Part]:
    upper, lower = random.uniform(0.42, 0.52), random.uniform(0.28, 0.38)
    parts = []
    for side in (-1, 1):
        parts += [
            _polygon("dark", (0, -0.4), (side * 0.3, -0.95), (side * 0.34, -0.9)),
            _ellipse("accent", side * 0.42, 0.42, lower, 0.38),
            _ellipse("main", side * 0.5, -0.25, upper, 0.46),
            _ellipse("light", side * 0.55, -0.25, 0.15, 0.15),
        ]
    return [*parts, _ellipse("dark", 0, 0.05, 0.09, 0.6)]


def _cup(random: np.random.Generator) -> list[Part]:
    top, base = random.uniform(0.55, 0.68), random.uniform(0.4, 0.55)
    parts = [
        _band("main", _arc(top, 0.1, 0.36, 0.4, -90, 90), _arc(top - 0.02, 0.1, 0.2, 0.24, -90, 90)),
        _polygon("main", (-top, -0.6), (top, -0.6), (base, 0.8), (-base, 0.8)),
        _ellipse("dark", 0, -0.6, top, 0.16),
    ]
    if random.random() < 0.7:
        parts.append(
            _polygon("accent", (-top * 0.93, -0.1), (top * 0.93, -0.1), (base * 1.1, 0.25), (-base * 1.1, 0.25))
        )
    return parts


def _flower(random: np.random.Generator) -> list[Part]:
    petals, reach = int(random.integers(5, 9)), random.uniform(0.34, 0.42)
    parts = [_box("leaf", -0.05, -0.2, 0.05, 0.98), _polygon("leaf", (0, 0.75), (0.5, 0.3), (0.35, 0.65))]
    for angle in np.linspace(0, 2 * np.pi, petals, endpoint=False):
        parts.append(_ellipse("main", reach * np.cos(angle), -0.4 + reach * np.sin(angle), 0.24, 0.24))
    return [*parts, _ellipse("accent", 0, -0.4, 0.24, 0.24)]


OBJECTS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "house": _house,
    "tree": _tree,
    "car": _car,
    "fish": _fish,
    "umbrella": _umbrella,
    "mushroom": _mushroom,
    "sailboat": _sailboat,
    "butterfly": _butterfly,
    "cup": _cup,
    "flower": _flower,
}
KINDS = tuple(OBJECTS)
