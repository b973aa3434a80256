"""Decode images within limits on their size and shape."""

from __future__ import annotations

import io
import warnings

from PIL import Image

# A small file may hold a huge image. This limit keeps the memory of one decoded image below 200 MB.
MAXIMUM_PIXELS = 64_000_000
# Images with a larger aspect ratio are refused. Preprocessing resizes the shorter side to a fixed length and keeps the aspect
# ratio. A very narrow image would then become so long that it needs too much memory.
MAXIMUM_ASPECT_RATIO = 100
FORMATS = ("JPEG", "PNG", "WEBP")


class BrokenImage(Exception):
    """An error for an image that cannot be used.

    The message is the reason, one of `too_many_pixels`, `too_narrow` and `broken_image`. Accounting counts images by reason.
    """


def decode(image: bytes) -> Image.Image:
    """Decode a JPEG, PNG or WebP image to RGB.

    Raises:
        BrokenImage: The image cannot be used. The reason is `too_many_pixels` if the image has more than 64 megapixels. It is
            `too_narrow` if one side is more than 100 times the other side. In all other cases, it is `broken_image`.
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
        # Pillow raises all of these errors for damaged files. A damaged PNG chunk, for example, raises SyntaxError.
        raise BrokenImage("broken_image") from None
