"""Image bytes to RGB pictures, within limits."""

from __future__ import annotations

import io
import warnings

from PIL import Image

MAXIMUM_PIXELS = 64_000_000
# A narrower image would be enlarged beyond all bounds where its shorter side is resized.
MAXIMUM_ASPECT_RATIO = 100
FORMATS = ("JPEG", "PNG", "WEBP")


class BrokenImage(Exception):
    """Image bytes that cannot be decoded; the message is the reason under which they are counted."""


def decode(image: bytes) -> Image.Image:
    """Decode JPEG, PNG or WebP bytes to an RGB image.

    Raises:
        BrokenImage: `broken_image` where the bytes cannot be decoded, `too_many_pixels` above 64 megapixels, `too_narrow`
            where one side is more than 100 times the other.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(image), formats=FORMATS)
            if picture.width * picture.height > MAXIMUM_PIXELS:
                raise BrokenImage("too_many_pixels")
            if max(picture.size) > MAXIMUM_ASPECT_RATIO * min(picture.size):
                raise BrokenImage("too_narrow")
            return picture.convert("RGB")
    except Image.DecompressionBombError:
        raise BrokenImage("too_many_pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError):
        # Pillow raises each of these for damaged files, SyntaxError among them (PNG chunks).
        raise BrokenImage("broken_image") from None
