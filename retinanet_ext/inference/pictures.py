"""From a file, a Pillow image or an array to pixels in the config's ``INPUT.FORMAT``.

Files are decoded by the reader of training and evaluation, so that a picture has the same pixels
wherever the model sees it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data.detection_utils import convert_image_to_rgb, convert_PIL_to_numpy
from PIL import Image, ImageOps

from ..data.loading.bad_images import BadImageError, describe
from ..data.loading.pixels import DEEP_MODES, eight_bits, read_picture, why_unreadable
from ..errors import InputError, UserError

__all__ = ["CHANNELS", "Picture", "read_pixels"]

CHANNELS = ("RGB", "BGR", "RGBA", "BGRA", "L")
"""What the last axis of an array may be; "L" is a gray picture, which may lack that axis."""

Source = Any
"""A path, a Pillow image, a uint8 array, or a :class:`Picture`."""


@dataclass(frozen=True)
class Picture:
    """Something that holds a picture, and how it is to be read and called.

    Attributes:
        source: a path, a Pillow image or an array.
        channels: of an array: one of :data:`CHANNELS`.
        scale: of an array of uint16: what makes 0 to 255 of its values.
        value_range: of an array of floats: the values that become 0 and 255.
        name: for results and messages; the path where empty.
        extra: handed through to the results, such as the frame of a video.
    """

    source: Any
    channels: str = ""
    name: str = ""
    extra: Any = None
    scale: float | None = None
    value_range: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """The name, or what there is in its place."""
        if self.name:
            return self.name
        if isinstance(self.source, (str, os.PathLike)):
            return os.fspath(self.source)
        return str(getattr(self.source, "filename", "") or "")


def read_pixels(picture: Picture, format: str, sixteen_bit: str = "") -> np.ndarray:
    """The picture's pixels, upright, (H, W, C) uint8 in ``format``.

    Args:
        picture: what to read.
        format: ``INPUT.FORMAT``.
        sixteen_bit: ``INPUT.SIXTEEN_BIT``.

    Raises:
        BadImageError: a file that cannot be read, in one sentence that names it.
        InputError: an array or image of a form that cannot be understood without guessing.
    """
    source = picture.source
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        try:
            return read_picture(path, format, sixteen_bit)
        except (OSError, SyntaxError, ValueError, MemoryError) as error:  # what Pillow raises
            known = isinstance(error, UserError)  # a sentence that names the file
            reason = why_unreadable(error).removeprefix("cannot be read: ")
            text = (
                describe({"file_name": path}, error) if known else f"cannot load {path}: {reason}"
            )
            raise BadImageError(text) from error
    if isinstance(source, Image.Image):
        return _of_pillow(source, picture.label or "the image", format, sixteen_bit)
    if isinstance(source, np.ndarray):
        return _of_array(source, picture, format)
    raise InputError(
        f"a picture is a path, a Pillow image or a NumPy array, but this is a "
        f"{type(source).__name__}"
    )


def to_rgb(pixels: np.ndarray, format: str) -> np.ndarray:
    """Pixels of :func:`read_pixels` as (H, W, 3) uint8 RGB, to draw on."""
    if format in ("RGB", "BGR"):  # no copy of pixels that were read as RGB and turned round
        return np.ascontiguousarray(pixels if format == "RGB" else pixels[:, :, ::-1])
    return np.ascontiguousarray(convert_image_to_rgb(pixels, format), dtype=np.uint8)


def _of_pillow(image: Image.Image, name: str, format: str, sixteen_bit: str) -> np.ndarray:
    # Damaged EXIF data, which Pillow stumbles over in many ways, tell nothing, as in Detectron2's
    # reader of files.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode in DEEP_MODES:
        image = Image.fromarray(eight_bits(np.asarray(image), image.mode, sixteen_bit, name))
    return convert_PIL_to_numpy(image, format)


def _of_array(array: np.ndarray, picture: Picture, format: str) -> np.ndarray:
    name = picture.label or "the array"
    channels = picture.channels
    if not channels:
        raise InputError(
            f"{name}, of shape {array.shape}, does not say what its channels are; pass "
            f"channels=, one of {', '.join(CHANNELS)} (OpenCV reads BGR, Pillow RGB)"
        )
    if channels not in CHANNELS:
        raise InputError(f"channels is '{channels}'; use one of {', '.join(CHANNELS)}")
    array = _as_bytes(array, name, picture.scale, picture.value_range)
    wanted = len(channels)
    gray = channels == "L"
    if not (array.ndim == 2 and gray) and not (array.ndim == 3 and array.shape[2] == wanted):
        form = "(H, W)" if gray else f"(H, W, {wanted})"
        raise InputError(f"{name} has the shape {array.shape}, but channels {channels} is {form}")
    if 0 in array.shape:
        raise InputError(f"{name} has the shape {array.shape}, which holds no pixel")
    if channels == "BGR":
        array = array[:, :, ::-1]
    elif channels == "BGRA":
        array = array[:, :, [2, 1, 0, 3]]
    if gray:
        array = array.reshape(array.shape[:2])
    return convert_PIL_to_numpy(Image.fromarray(np.ascontiguousarray(array)), format)


def _as_bytes(
    array: np.ndarray,
    name: str,
    scale: float | None = None,
    value_range: tuple[float, float] | None = None,
) -> np.ndarray:
    """The array as uint8 of the same shape; of uint8, itself.

    Args:
        array: of uint8, of uint16 with ``scale``, or of floats with ``value_range``.
        name: of the array, for messages.
        scale: values times this one are 0 to 255.
        value_range: what becomes 0 and 255.

    Raises:
        InputError: the rule is missing, is for another dtype, or a value lies outside of it.
    """
    kind = array.dtype
    is_float = kind.kind == "f"
    known = is_float or kind in (np.uint8, np.uint16)
    given = scale is not None, value_range is not None
    if not known or given != (kind == np.uint16, is_float):
        raise InputError(f"{name} is of {kind}, {_rule_of(kind)}")
    if kind == np.uint8:
        return array
    if value_range is None:
        low, factor = 0.0, float(scale or 0.0)
        rule = f"scale {factor:g}"
    else:
        low, high = map(float, value_range)
        factor = 255.0 / (high - low) if high > low else 0.0
        rule = f"value_range ({low:g}, {high:g})"
    if not 0 < factor < np.inf:
        raise InputError(f"{name} has the {rule}, which makes no 0 to 255 of its values")
    values = (array.astype(np.float64) - low) * factor
    if not ((values > -0.5) & (values < 255.5)).all():  # NaN is outside, too
        raise InputError(
            f"{name} has values from {array.min():g} to {array.max():g}, which {rule} does not put "
            "into 0 to 255; state the range that all of your pictures have"
        )
    return np.rint(values).astype(np.uint8)


def _rule_of(kind: np.dtype) -> str:
    if kind == np.uint8:
        return "0 to 255 as the model takes them; leave out scale= and value_range="
    if kind == np.uint16:
        return "so pass scale=, such as 255 / 4095, which makes 0 to 255 of its values"
    if kind.kind == "f":
        return "so pass value_range=, such as (0, 1), the values that become 0 and 255"
    return "but the model takes 0 to 255 in uint8; convert it by a rule of your own"
