"""From the bytes that a stranger sent to a picture, within limits."""

from __future__ import annotations

import io
import warnings
from http import HTTPStatus

from PIL import Image

from ..data.loading.pixels import why_unreadable
from .answers import Refused

__all__ = ["FORMATS", "check_content_type", "open_upload"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""What is read, in Pillow's names: formats of pictures and, of those, no reader that starts a
program (EPS) or fetches something."""

_KINDS = "a JPEG, PNG, WebP, BMP, TIFF or GIF"


def check_content_type(content_type: str) -> None:
    """Check that a body is said to be a picture, or just bytes.

    No other type is read: a form on any web page can post to any server, but not with these types.

    Raises:
        Refused: 415.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind != "application/octet-stream":
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the content type is {kind!a}; send {_KINDS} file as the body, with the content "
            "type image/* or application/octet-stream",
        )


def open_upload(body: bytes, max_pixels: int) -> Image.Image:
    """The picture in ``body``; of several frames, the first.

    Args:
        body: of the request.
        max_pixels: width times height, at most.

    Returns:
        Decoded; not yet turned as its EXIF data say.

    Raises:
        Refused: 415 where it is no picture, or broken; 413 where it has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            # Of broken tags, which is the client's affair, and of Pillow's own limit of pixels.
            warnings.simplefilter("ignore")
            _check_size(Image.open(io.BytesIO(body), formats=FORMATS), max_pixels).verify()
            # verify() spoils the image that it looks at.
            image = _check_size(Image.open(io.BytesIO(body), formats=FORMATS), max_pixels)
            image.load()
        return image
    except Image.UnidentifiedImageError:
        reason = f"this is not {_KINDS}; choose a picture" if body else "the body is empty"
    except Image.DecompressionBombError:
        raise _too_many_pixels("more", max_pixels) from None
    except MemoryError:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "the picture needs more memory than there is; make it smaller",
        ) from None
    # Readers meet broken files with whatever they stumble over.
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError) as error:
        reason = f"the picture {why_unreadable(error)}; save it again, or choose another"
    raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, reason)


def _check_size(image: Image.Image, max_pixels: int) -> Image.Image:
    """By the file's header, before anything is decoded."""
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many_pixels(f"{width} x {height}, which is more", max_pixels)
    return image


def _too_many_pixels(seen: str, max_pixels: int) -> Refused:
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the picture has {seen} than the {max_pixels:,} pixels that this server takes "
        "(--max-pixels); make it smaller",
    )
