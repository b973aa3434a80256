"""Render scenes as images in clearly different styles."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from simgap.toy.objects import KINDS, OBJECTS, Part
from simgap.toy.scene import COLOURS, ODD_SETTINGS, SETTINGS, Scene

Pixels = NDArray[np.float32]
Colour = tuple[int, int, int]
# Images are first painted with this many times the final width and height. They are then reduced by averaging, which
# makes edges smooth.
OVERSAMPLING = 2
# A mosaic consists of square stones. The side of a stone has this many pixels of the enlarged image.
STONE = 4
FIXED_COLOURS = {"dark": (40, 36, 34), "light": (232, 232, 226), "wood": (110, 75, 45), "leaf": (60, 125, 55)}


def _noise(random: np.random.Generator, cells: int, size: int) -> Pixels:
    """Generate smooth random noise with values in [-1, 1].

    The function interpolates a grid of random values. Fewer cells give smoother noise.

    Args:
        random: The random generator.
        cells: Number of cells along each side of the grid.
        size: Pixels along each side of the result.

    Returns:
        The noise, fp32 [size, size, 1].
    """
    coarse = random.uniform(-1, 1, (cells, cells)).astype(np.float32)
    smooth: Pixels = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR))
    return smooth[:, :, None]


@functools.cache
def _texture(name: str, size: int) -> Pixels:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if name == "waves":
        pattern = np.sin(2 * np.pi * (9 * y + 0.8 * np.sin(9 * x)))
    elif name == "planks":
        pattern = np.where((x * 5) % 1 < 0.08, -2.0, np.sin(2 * np.pi * (x * 23)) * 0.5)
    elif name == "bricks":
        row = np.floor(y * 8)
        pattern = np.where(((y * 8) % 1 < 0.16) | (((x * 4 + row * 0.5) % 1) < 0.08), 2.0, -0.4)
    elif name == "tiles":
        pattern = np.where((np.floor(x * 6) + np.floor(y * 6)) % 2 == 0, 1.5, -1.5)
    else:
        pattern = np.zeros_like(x)
    texture: Pixels = pattern[:, :, None].astype(np.float32)
    return texture


def _background(scene: Scene, random: np.random.Generator, size: int) -> Pixels:
    far, near, texture = {**SETTINGS, **ODD_SETTINGS}[scene.setting]
    horizon, sharpness = np.float32(random.uniform(0.25, 0.65)), np.float32(random.uniform(4, 14))
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    share = np.clip((y - horizon) * sharpness + 0.5, 0, 1)
    base = np.array(far, np.float32) * (1 - share) + np.array(near, np.float32) * share
    pattern = np.roll(_texture(texture, size), tuple(random.integers(0, size, 2)), axis=(0, 1))
    grain = random.standard_normal((size, size, 1), np.float32) * 6 * share
    pixels: Pixels = base + pattern * 9 + _noise(random, 5, size) * 16 + grain
    return pixels


def _jitter(colour: Colour, random: np.random.Generator, amount: float) -> Colour:
    red, green, blue = (int(v) for v in np.clip(np.array(colour) + random.normal(0, amount, 3), 0, 255))
    return red, green, blue


def _palette(scene: Scene, random: np.random.Generator, amount: float) -> dict[str, Colour]:
    colours = {"main": COLOURS[scene.colour], "accent": COLOURS[scene.accent], **FIXED_COLOURS}
    return {role: _jitter(colour, random, amount) for role, colour in colours.items()}


def _placed(scene: Scene, random: np.random.Generator, size: int) -> list[list[Part]]:
    """Place the objects of a scene on the image.

    Args:
        scene: The scene.
        random: The random generator.
        size: Pixels along each side of the image.

    Returns:
        A list with the parts of each object. The corners of the parts are in pixels.
    """
    placed = []
    shape = np.random.default_rng(random.integers(2**32))
    for position in range(scene.number):
        reach = (0.46, 0.28, 0.22)[scene.number - 1] * size * random.uniform(0.82, 1.05)
        if scene.style == "hard":
            reach *= 0.68
        if scene.style == "objectnet":
            reach *= random.uniform(0.85, 1.35)
            angle = random.uniform(0, 360)
        else:
            angle = random.normal(0, 5) + random.choice((-1, 1)) * (0, 24, 80)[scene.pose]
        turn = np.radians(angle)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = matrix @ np.diag([random.choice((-1, 1)) * random.uniform(0.85, 1.1), random.uniform(0.85, 1.1)])
        if scene.style == "objectnet":
            matrix = matrix @ np.array([[1, random.uniform(-0.4, 0.4)], [0, random.uniform(0.6, 1.0)]])
        spread = 0.0 if scene.number == 1 else (position - (scene.number - 1) / 2) * size / scene.number
        wobble = 0.16 if scene.style == "hard" else 0.06
        centre = size / 2 + np.array([spread, 0.04 * size]) + random.uniform(-wobble, wobble, 2) * size
        parts = OBJECTS[KINDS[scene.kind]](shape)
        placed.append([Part(part.role, part.points @ matrix.T * reach + centre) for part in parts])
    return placed


def _outline(part: Part) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in part.points]


def _clutter(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: int, pieces: int) -> None:
    for _ in range(pieces):
        x, y = random.uniform(0, size, 2)
        corners = [(x + dx, y + dy) for dx, dy in random.uniform(-0.2, 0.2, (int(random.integers(3, 6)), 2)) * size]
        draw.polygon(corners, fill=_jitter(COLOURS[str(random.choice(list(COLOURS)))], random, 20))


def _photograph(scene: Scene, random: np.random.Generator, size: int) -> Pixels:
    background = _background(scene, random, size)
    if scene.style == "hard":
        canvas = Image.fromarray(np.clip(background, 0, 255).astype(np.uint8))
        _clutter(ImageDraw.Draw(canvas), random, size, int(random.integers(5, 10)))
        background = np.asarray(canvas, np.float32)
    albedo, mask = Image.new("RGB", (size, size)), Image.new("L", (size, size))
    paint, cover = ImageDraw.Draw(albedo), ImageDraw.Draw(mask)
    palette = _palette(scene, random, 14)
    for parts in _placed(scene, random, size):
        for part in parts:
            paint.polygon(_outline(part), fill=palette[part.role])
            cover.polygon(_outline(part), fill=255)
    shade = Image.new("L", (size, size))
    shade.paste(mask, (int(random.integers(-6, 7)), int(random.integers(3, 8))))
    shadow = np.asarray(shade.filter(ImageFilter.BoxBlur(5)), np.float32)[:, :, None] / 255
    alpha = np.asarray(mask.filter(ImageFilter.BoxBlur(1)), np.float32)[:, :, None] / 255
    along = np.linspace(-0.32, 0.32, size, dtype=np.float32)
    light = random.uniform(0, 2 * np.pi)
    slope = np.float32(np.cos(light)) * along[None, :, None] + np.float32(np.sin(light)) * along[:, None, None]
    lit = 1 + slope + 0.1 * _noise(random, 12, size)
    pixels: Pixels = background * (1 - 0.45 * shadow) * (1 - alpha) + np.asarray(albedo, np.float32) * lit * alpha
    if scene.style == "hard":
        canvas = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        _clutter(ImageDraw.Draw(canvas), random, size, int(random.integers(1, 3)))
        pixels = (np.asarray(canvas, np.float32) - 110) * random.uniform(0.55, 0.85) + 110
    return pixels


def _sketch(scene: Scene, random: np.random.Generator, size: int) -> Pixels:
    paper = int(random.integers(232, 255))
    canvas = Image.new("L", (size, size), paper)
    draw = ImageDraw.Draw(canvas)
    ink, width = int(random.integers(20, 90)), int(random.integers(2, 4))
    for parts in _placed(scene, random, size):
        for part in parts:
            draw.polygon(_outline(part), fill=paper)
            for _ in range(2):
                shaken = part.points + random.normal(0, 0.008 * size, part.points.shape)
                draw.line([*map(tuple, shaken), tuple(shaken[0])], fill=ink, width=width)
    pixels = np.asarray(canvas, np.float32)[:, :, None] + _noise(random, 24, size) * 5
    return np.repeat(pixels, 3, axis=2)


def _cartoon(scene: Scene, random: np.random.Generator, size: int) -> Pixels:
    sky = _jitter(COLOURS[str(random.choice(list(COLOURS)))], random, 25)
    canvas = Image.new("RGB", (size, size), tuple((value + 255) // 2 for value in sky))
    draw = ImageDraw.Draw(canvas)
    palette = _palette(scene, random, 6)
    width = int(random.integers(3, 5))
    for parts in _placed(scene, random, size):
        for part in parts:
            outline = _outline(part)
            draw.polygon(outline, fill=palette[part.role])
            draw.line([*outline, outline[0]], fill=(15, 15, 20), width=width)
    return np.asarray(canvas, np.float32)


def _painting(scene: Scene, random: np.random.Generator, size: int) -> Pixels:
    pixels = np.clip(_photograph(scene, random, size), 0, 255).astype(np.uint8)
    canvas = Image.fromarray(pixels)
    draw = ImageDraw.Draw(canvas)
    places = random.integers(0, size, (260, 2))
    turns = random.normal(random.uniform(0, np.pi), 0.5, 260)
    strokes = pixels[places[:, 1], places[:, 0]] + random.normal(0, 12, (260, 3))
    for (x, y), turn, colour in zip(places.tolist(), turns, np.clip(strokes, 0, 255).astype(int).tolist(), strict=True):
        dx, dy = 6 * np.cos(turn), 6 * np.sin(turn)
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=tuple(colour), width=4)
    return np.asarray(canvas, np.float32)


def _mosaic(scene: Scene, random: np.random.Generator, size: int) -> Pixels:
    cells = size // STONE
    pixels = np.clip(_cartoon(scene, random, size), 0, 255).astype(np.uint8)
    stones = np.asarray(Image.fromarray(pixels).resize((cells, cells), Image.Resampling.BOX), np.float32)
    stones = stones + random.normal(0, 9, stones.shape).astype(np.float32)
    large = np.kron(stones, np.ones((STONE, STONE, 1), np.float32))
    large[::STONE], large[:, ::STONE] = large[::STONE] * 0.6, large[:, ::STONE] * 0.6
    return np.pad(large, ((0, size - STONE * cells), (0, size - STONE * cells), (0, 0)), mode="edge")


def _finished(pixels: Pixels, random: np.random.Generator, image_size: int) -> Image.Image:
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize(
        (image_size, image_size), Image.Resampling.BOX
    )
    grain = random.standard_normal((image_size, image_size, 3), np.float32) * 3.5
    gain = (random.uniform(0.85, 1.12) * random.normal(1, 0.03, 3)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(image, np.float32) * gain + grain, 0, 255).astype(np.uint8))


def render(scene: Scene, random: np.random.Generator, image_size: int) -> Image.Image:
    """Render a scene in its style.

    Args:
        scene: The scene.
        random: The random generator.
        image_size: Pixels along each side of the image.

    Returns:
        The RGB image.
    """
    renderers = {"cartoon": _cartoon, "painting": _painting, "mosaic": _mosaic}
    size = image_size * OVERSAMPLING
    if scene.style == "sketch":
        pixels = _sketch(scene, random, size)
    elif scene.style == "rendition":
        pixels = renderers[scene.medium](scene, random, size)
    else:
        pixels = _photograph(scene, random, size)
    return _finished(pixels, random, image_size)


def render_off_topic(random: np.random.Generator, image_size: int) -> Image.Image:
    """Render an image that shows no object of any class.

    The image shows bars, lines of text, random polygons or a plain landscape.

    Args:
        random: The random generator.
        image_size: Pixels along each side of the image.

    Returns:
        The RGB image.
    """
    size = image_size * OVERSAMPLING
    canvas = Image.new("RGB", (size, size), _jitter((210, 210, 210), random, 40))
    draw = ImageDraw.Draw(canvas)
    sort = random.integers(4)
    if sort in (0, 3):
        draw.rectangle((0, 0, size, random.uniform(0.2, 0.8) * size), fill=_jitter((120, 140, 160), random, 60))
    if sort == 0:
        for x in np.arange(0.1, 0.9, 0.14) * size:
            draw.rectangle(
                (x, random.uniform(0.2, 0.8) * size, x + 0.09 * size, 0.9 * size),
                fill=_jitter((90, 120, 170), random, 50),
            )
    elif sort == 1:
        ink = _jitter((70, 70, 75), random, 40)
        for y in np.arange(0.1, 0.9, random.uniform(0.08, 0.2)) * size:
            draw.rectangle((0.1 * size, y, random.uniform(0.2, 0.9) * size, y + 0.04 * size), fill=ink)
    elif sort == 2:
        _clutter(draw, random, size, int(random.integers(6, 30)))
    pixels = np.asarray(canvas, np.float32) + _noise(random, int(random.integers(2, 20)), size) * random.uniform(10, 70)
    return _finished(pixels, random, image_size)
