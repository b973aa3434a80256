"""Decode images within limits on their size and shape."""

from __future__ import annotations

import io
import warnings

from PIL import Image

MAXIMUM_PIXELS = 64_000_000
# Preprocessing resizes the shorter side. The longer side of a narrower image would then need too much memory.
MAXIMUM_ASPECT_RATIO = 100
FORMATS = ("JPEG", "PNG", "WEBP")


class BrokenImage(Exception):
    """Raised for an image that cannot be decoded. The message is the reason under which the image is counted."""


def decode(image: bytes) -> Image.Image:
    """Decode a JPEG, PNG or WebP image to RGB.

    Raises:
        BrokenImage: If the image cannot be used. The reason is `too_many_pixels` if it has more than 64 megapixels,
            `too_narrow` if one side is more than 100 times the other, and else `broken_image`.
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
        # Pillow raises all of these for damaged files; SyntaxError, for example, for damaged PNG chunks.
        raise BrokenImage("broken_image") from None
