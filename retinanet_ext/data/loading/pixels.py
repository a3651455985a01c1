"""One reader of pictures for training, evaluation, drawing and checks: 8 bits, by a stated rule."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps, UnidentifiedImageError

from ...compat import with_globals
from ...errors import InputError, one_line

__all__ = [
    "DEEP_MODES",
    "PictureMapper",
    "ResizeShortestEdge",
    "eight_bits",
    "never_empty",
    "read_picture",
    "why_unreadable",
]

DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of more than 8 bits, which its conversion to RGB clips to 0..255."""

LARGE = 2**24  # pixels
STRIP = 64  # rows

SCALES = {"I": 65535.0, "F": 1.0}  # the top of "full"; 16 bits for the others


def read_picture(file_name: str, format: str | None = None, sixteen_bit: str = "") -> np.ndarray:
    """Detectron2's ``read_image``, which also reads pictures of 16 bits, int32 and floats.

    Args:
        file_name: a path that ``PathManager`` can open.
        format: as in ``read_image``: a mode of Pillow, "BGR" or "YUV-BT.601".
        sixteen_bit: ``INPUT.SIXTEEN_BIT``: see :func:`eight_bits`.

    Returns:
        (H, W, C) uint8, turned as EXIF says; as in ``read_image``.

    Raises:
        ValueError: pixels of more than 8 bits, and no rule for them or one that does not fit; or
            more pixels than Pillow decodes; or the file is a folder, device or pipe.
        OSError: what Pillow says of the file.
    """
    if not os.path.isfile(file_name) and os.path.exists(file_name):
        raise InputError(f"{file_name}: is a folder, device or pipe, but must be a file")
    try:
        with PathManager.open(file_name, "rb") as file, Image.open(file) as image:
            turns_itself = image.format == "TIFF"
            if turns_itself:  # as EXIF says, while it is decoded; read_image would turn it again
                image.load()
            if image.mode in DEEP_MODES:
                pixels = np.asarray(ImageOps.exif_transpose(image))
                shallow = eight_bits(pixels, image.mode, sixteen_bit, file_name)
                return utils.convert_PIL_to_numpy(Image.fromarray(shallow), format)
            if image.mode == "RGB" and format in ("RGB", "BGR") and is_large(image.size):
                ImageOps.exif_transpose(image, in_place=True)
                pixels = by_strips(image)
                return pixels[:, :, ::-1] if format == "BGR" else pixels
            if turns_itself:
                return utils.convert_PIL_to_numpy(ImageOps.exif_transpose(image), format)
        return utils.read_image(file_name, format=format)
    except Image.DecompressionBombError as error:
        raise InputError(f"{file_name}: {why_unreadable(error)}") from None


def is_large(size: tuple[int, int]) -> bool:
    """Whether copies of a picture of (width, height) pixels are worth sparing."""
    return size[0] * size[1] > LARGE


def by_strips(image: Image.Image) -> np.ndarray:
    """Pixels (H, W, 3) of an RGB image, which is closed on the way.

    Pillow holds 4 bytes a pixel, and the array is 3 more. So the pixels wait in a temporary file
    until Pillow's are freed; where there is no room for one, both are in memory for a moment.
    """
    shape = (image.height, image.width, 3)
    try:
        file = _in_a_file(image)
    except OSError:
        pixels = np.empty(shape, np.uint8)
        for top, strip in _strips(image):
            pixels[top : top + len(strip)] = strip
        return pixels
    with file:
        image.close()
        return np.fromfile(file, np.uint8).reshape(shape)


def _in_a_file(image: Image.Image) -> Any:
    """A temporary file with the image's pixels, open at its start."""
    with contextlib.ExitStack() as on_failure:
        file = on_failure.enter_context(tempfile.TemporaryFile())
        for _, strip in _strips(image):
            file.write(strip.data)
        file.seek(0)
        on_failure.pop_all()
    return file


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """The first row of each strip, and its pixels, contiguous."""
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        yield top, np.asarray(image.crop((0, top, image.width, bottom)))


def why_unreadable(error: Exception) -> str:
    """What Pillow or the system says of a picture, in words that help, without the file's name."""
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"has more than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels that Pillow decodes; "
            "cut it into tiles, or make it smaller"
        )
    if isinstance(error, UnidentifiedImageError):
        return "cannot be read: it is no kind of picture that Pillow knows"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return f"cannot be read: {one_line(error)}"


def eight_bits(pixels: np.ndarray, mode: str, rule: str, file_name: str) -> np.ndarray:
    """Pixels of more than 8 bits, scaled to 0..255 and never clipped.

    Args:
        pixels: (H, W), one channel.
        mode: one of :data:`DEEP_MODES`.
        rule: "full": 0..65535 (0..1 for floats) becomes 0..255, the same for all pictures;
            "minmax": the lowest and the highest value of this picture become 0 and 255.
        file_name: for messages.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: no rule, a value that is not finite or, for "full", out of its range.
    """
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{file_name}: has pixels that are not finite (mode {mode}); convert it")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    top = SCALES.get(mode, 65535.0)
    seen = f"{file_name}: has pixels of mode {mode} from {low:g} to {high:g}"
    if rule not in ("full", "minmax"):
        raise InputError(
            f"{seen}, more than the 8 bits that the model takes; set INPUT.SIXTEEN_BIT to full "
            f"(0..{top:g} becomes 0..255) or minmax (the range of each picture does)"
        )
    if rule == "minmax":
        top, values = high - low, values - low
    elif low < 0 or high > top:
        raise InputError(
            f"{seen}, but INPUT.SIXTEEN_BIT full takes 0 to {top:g}; set it to minmax, or convert "
            "the picture"
        )
    return np.rint(values * (255.0 / top if top else 0.0)).astype(np.uint8)


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's, but a picture of any proportions keeps at least one row and one column."""

    def get_transform(self, image: np.ndarray) -> Any:
        transform: Any = super().get_transform(image)
        sides = getattr(transform, "new_h", 1), getattr(transform, "new_w", 1)
        if 0 not in sides:
            return transform
        height, width = (max(1, x) for x in sides)
        return T.ResizeTransform(*image.shape[:2], height, width, self.interp)


def never_empty(augmentations: Sequence[Any]) -> list[Any]:
    """The same augmentations, with :class:`ResizeShortestEdge` in the place of Detectron2's."""
    return [
        ResizeShortestEdge(
            x.short_edge_length, x.max_size, "range" if x.is_range else "choice", x.interp
        )
        if type(x) is T.ResizeShortestEdge
        else x
        for x in augmentations
    ]


class PictureMapper(DatasetMapper):
    """Detectron2's mapper, whose pictures :func:`read_picture` reads."""

    @configurable
    def __init__(self, is_train: bool, *, sixteen_bit: str = "", **arguments: Any):
        """
        Args:
            is_train: for training.
            sixteen_bit: ``INPUT.SIXTEEN_BIT``.
            **arguments: of Detectron2's mapper.
        """
        super().__init__(is_train, **arguments)
        self.sixteen_bit = sixteen_bit

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        found = super().from_config(cfg, is_train)
        size = () if is_train else tuple(cfg.INPUT.get("SIZE_TEST", ()))
        if size:
            found["augmentations"] = [T.Resize(size)]
        found["augmentations"] = never_empty(found["augmentations"])
        return {**found, "sixteen_bit": cfg.INPUT.get("SIXTEEN_BIT", "")}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """As Detectron2's; raises ``ValueError`` for pixels of more than 8 bits without a rule."""
        reader = _Reader(self.sixteen_bit)
        return with_globals(DatasetMapper.__call__, utils=reader)(self, dataset_dict)


class _Reader:
    """Stands for the module that Detectron2's mapper reads pictures with."""

    def __init__(self, sixteen_bit: str):
        self.sixteen_bit = sixteen_bit

    def read_image(self, file_name: str, format: str | None = None) -> np.ndarray:
        return read_picture(file_name, format, self.sixteen_bit)

    def __getattr__(self, name: str) -> Any:
        return getattr(utils, name)
