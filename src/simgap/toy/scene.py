"""Choose the content of images at random, and write captions that describe the content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simgap.toy.objects import KINDS

COLOURS = {
    "red": (205, 45, 40),
    "orange": (235, 135, 35),
    "yellow": (235, 210, 60),
    "green": (60, 150, 70),
    "blue": (50, 90, 200),
    "purple": (135, 60, 165),
    "pink": (240, 140, 180),
    "white": (235, 235, 230),
    "grey": (130, 130, 135),
    "brown": (130, 85, 50),
}
USUAL_COLOURS = {
    "house": "brown", "tree": "green", "car": "grey", "fish": "orange", "umbrella": "purple",
    "mushroom": "red", "sailboat": "blue", "butterfly": "yellow", "cup": "white", "flower": "pink",
}  # fmt: skip
# Each setting has the colour of the far background, the colour of the near background and the name of a texture.
SETTINGS = {
    "grass": ((165, 205, 235), (85, 140, 60), "grain"),
    "sand": ((150, 200, 230), (220, 195, 140), "grain"),
    "water": ((190, 215, 235), (45, 105, 150), "waves"),
    "snow": ((175, 190, 215), (240, 243, 248), "grain"),
    "street": ((150, 150, 160), (85, 85, 92), "grain"),
    "night": ((15, 18, 45), (35, 38, 60), "grain"),
    "table": ((205, 190, 170), (150, 100, 60), "planks"),
    "brick": ((160, 85, 65), (140, 70, 55), "bricks"),
}
ODD_SETTINGS = {
    "bathroom floor": ((215, 225, 230), (190, 205, 215), "tiles"),
    "bed": ((225, 215, 230), (200, 190, 215), "waves"),
    "carpet": ((120, 50, 60), (105, 45, 70), "tiles"),
    "kitchen counter": ((70, 75, 80), (100, 105, 110), "bricks"),
}
MEDIA = ("cartoon", "painting", "mosaic")
NUMBERS = ("a", "two", "three")
POSES = ("", "tilted", "lying")
FILLER = (
    "free stock",
    "buy online",
    "best of 2016",
    "wallpaper hd",
    "for sale",
    "my holiday",
    "download now",
    "pinterest",
)
OFF_TOPIC = (
    "terms and conditions", "annual report chart", "sunset over the bay", "company logo", "weather radar map",
    "abstract pattern", "people at the conference", "screenshot of settings", "error loading image", "fabric swatch",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """The content of an image.

    Attributes:
        kind: Index of the class in `KINDS`.
        style: `photo`, `sketch`, `rendition`, `hard`, `v2` or `objectnet`.
        colour: Name of the main colour of the objects.
        accent: Name of the second colour of the objects.
        number: Number of objects, 1 to 3.
        pose: Index of the pose in `POSES`.
        setting: Background, a key of `SETTINGS` or `ODD_SETTINGS`.
        medium: One of `MEDIA`. Only renditions use this attribute.
    """

    kind: int
    style: str
    colour: str
    accent: str
    number: int
    pose: int
    setting: str
    medium: str


def draw_scene(random: np.random.Generator, kind: int, style: str) -> Scene:
    """Choose a random scene of a given class and style.

    Args:
        random: The random generator.
        kind: Index of the class in `KINDS`.
        style: Style of the scene.

    Returns:
        The scene.
    """
    settings = ODD_SETTINGS if style == "objectnet" else SETTINGS
    colour, accent = random.choice(list(COLOURS), 2, replace=False)
    if random.random() < 0.4:
        colour = USUAL_COLOURS[KINDS[kind]]
    return Scene(
        kind=kind,
        style=style,
        colour=str(colour),
        accent=str(accent),
        number=int(random.choice(3, p=(0.84, 0.11, 0.05))) + 1,
        pose=int(random.choice(3, p=(0.74, 0.21, 0.05))),
        setting=str(random.choice(list(settings))),
        medium=str(random.choice(MEDIA)),
    )


def describe(scene: Scene, random: np.random.Generator) -> str:
    """Describe a scene in words.

    The description always names the number and class of the objects. It names other details, such as the colour, at random.

    Args:
        scene: The scene.
        random: The random generator.

    Returns:
        The description, for example "photo of two red cars".
    """
    name = KINDS[scene.kind]
    noun = name if scene.number == 1 or name == "fish" else f"{name}{'es' if name.endswith('sh') else 's'}"
    if scene.number > 1 and name == "butterfly":
        noun = "butterflies"
    words = [NUMBERS[scene.number - 1]]
    if scene.pose and random.random() < 0.25:
        words.append(POSES[scene.pose])
    if scene.style != "sketch" and random.random() < 0.3:
        words.append(scene.colour)
    words.append(noun)
    text = " ".join(words)
    if scene.style == "sketch" and random.random() < 0.6:
        return f"{random.choice(['sketch of', 'pencil drawing of', 'line art'])} {text}"
    if scene.style == "rendition" and random.random() < 0.6:
        return f"{scene.medium} of {text}"
    if random.random() < 0.15:
        text += f" on {scene.setting}"
    return f"photo of {text}" if random.random() < 0.3 else text


def web_caption(scene: Scene, random: np.random.Generator) -> str:
    """Write a caption like the captions of images on web pages.

    A caption may contain unrelated words, a file name or capital letters. A random 5% of the captions describe another
    scene.

    Args:
        scene: The scene.
        random: The random generator.

    Returns:
        The caption.
    """
    if random.random() < 0.05:
        scene = draw_scene(random, int(random.integers(len(KINDS))), scene.style)
    text = describe(scene, random)
    chance = random.random()
    if chance < 0.12:
        text = f"{text} {random.choice(FILLER)}"
    elif chance < 0.2:
        text = f"IMG{random.integers(100, 999)} {text}"
    elif chance < 0.26:
        text = text.upper()
    return text
