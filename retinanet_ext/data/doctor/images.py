"""Faults of image files: unreadable ones, wrong sizes, and rotation by the EXIF tag."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from ...errors import InputError
from ..loading.pixels import DEEP_MODES, eight_bits, why_unreadable
from ..parallel import map_in_processes
from .boxes import BORDER_TOLERANCE, usable_boxes
from .findings import Fault
from .table import DatasetTable

__all__ = ["ImageFacts", "check_images", "duplicate_images", "read_images", "turn_boxes"]

ORIENTATION_TAG = 0x0112
CODE_OF_PROBLEM = {
    "missing": "missing_image",
    "unreadable": "unreadable_image",
    "truncated": "truncated_image",
    "deep": "deep_pixels",
}


class ImageFacts(NamedTuple):
    """Size, orientation and error found when reading one image file.

    ``problem`` is "" or "missing", "unreadable", "truncated", "deep", with ``detail`` in words.
    ``width`` and ``height`` are those of the stored pixels, before the turn that ``orientation``
    (1..8, EXIF) asks for. ``digest`` is a hash of the pixels.
    """

    problem: str
    detail: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    digest: str = ""

    @property
    def loaded_size(self) -> tuple[int, int]:
        """Width and height as Detectron2 loads it, turned by its EXIF tag."""
        swapped = self.orientation >= 5
        return (self.height, self.width) if swapped else (self.width, self.height)


def read_images(files: Iterable[str], sixteen_bit: str = "") -> dict[str, ImageFacts]:
    """Decode each file once, in several processes, with a progress bar on a terminal.

    ``sixteen_bit`` is ``INPUT.SIXTEEN_BIT``, without which pictures of more than 8 bits are faults.
    """
    distinct = list(dict.fromkeys(x for x in files if x))
    read = partial(_read, sixteen_bit=sixteen_bit)
    return dict(zip(distinct, map_in_processes(read, distinct, "reading images"), strict=True))


def check_images(table: DatasetTable, facts: Mapping[str, ImageFacts]) -> list[Fault]:
    """Compare the table with what was read of its files."""
    known = [facts.get(x) if x else None for x in table.files]
    faults = []
    for problem, code in CODE_OF_PROBLEM.items():
        rows = [i for i, x in enumerate(known) if x is not None and x.problem == problem]
        faults.append(
            _at(code, rows, lambda i: known[i].detail)  # type: ignore[union-attr]
        )
    extents = _extents(table)
    rotated, unsure, wrong = [], [], []
    doubtful = _sizes_are_not_of_the_boxes(table, known, extents)
    for row, fact in enumerate(known):
        if fact is None or fact.problem:
            continue
        recorded = tuple(table.sizes[row])
        stored, loaded = (fact.width, fact.height), fact.loaded_size
        if stored != loaded and recorded == stored:
            in_stored, in_loaded = _fits(extents[row], stored), _fits(extents[row], loaded)
            if in_loaded and not in_stored:
                wrong.append(row)  # the size only: the boxes are of the picture as it is shown
            elif in_loaded and doubtful:
                unsure.append(row)
            else:
                rotated.append(row)
        elif recorded != loaded:
            if not np.isnan(table.sizes[row]).any():
                wrong.append(row)
        elif stored != loaded and not _fits(extents[row], loaded) and _fits(extents[row], stored):
            rotated.append(row)
        elif fact.orientation != 1 and stored == loaded and extents[row].any():
            unsure.append(row)

    def describe(row: int) -> tuple[str, ImageFacts]:
        fact = facts[table.files[row]]
        width, height = table.sizes[row]
        return f"recorded as {width:g} x {height:g}", fact

    def wrong_size(row: int) -> str:
        text, fact = describe(row)
        return f"{text}, but the file has {fact.loaded_size[0]} x {fact.loaded_size[1]}"

    def rotation(row: int) -> str:
        text, fact = describe(row)
        return (
            f"{text}; EXIF orientation {fact.orientation} turns it to {fact.loaded_size[0]} x "
            f"{fact.loaded_size[1]} when it is loaded, and the boxes do not follow"
        )

    def not_seen(row: int) -> str:
        return (
            f"EXIF orientation {facts[table.files[row]].orientation} mirrors or turns it when it "
            "is loaded; the sizes do not tell whether the boxes follow"
        )

    faults.append(_at("wrong_size", wrong, wrong_size))
    faults.append(_at("exif_rotation", rotated, rotation))
    faults.append(_at("exif_unsure", unsure, not_seen))
    return faults


def _sizes_are_not_of_the_boxes(
    table: DatasetTable, known: list[ImageFacts | None], extents: np.ndarray
) -> bool:
    """Whether boxes somewhere follow EXIF.

    A recorded size that does not then proves nothing about the boxes of the other pictures.
    """
    for row, fact in enumerate(known):
        if fact is None or fact.problem or fact.loaded_size == (fact.width, fact.height):
            continue
        stored = (fact.width, fact.height)
        if _fits(extents[row], fact.loaded_size) and not _fits(extents[row], stored):
            return True
    return False


def duplicate_images(table: DatasetTable, facts: Mapping[str, ImageFacts]) -> Fault:
    """Images with the pixels of an earlier one under another name."""
    first: dict[str, int] = {}
    again: dict[int, int] = {}
    for row, path in enumerate(table.files):
        fact = facts.get(path)
        if fact is not None and fact.digest:
            place = first.setdefault(fact.digest, row)
            if os.path.normpath(table.files[place]) != os.path.normpath(path):
                again[row] = place
    return _at("duplicate_image", list(again), lambda i: f"same pixels as {table.files[again[i]]}")


def turn_boxes(boxes: np.ndarray, width: int, height: int, orientation: int) -> np.ndarray:
    """(n, 4) XYXY in the stored pixels -> the same objects after the turn of ``orientation``.

    Args:
        width, height: of the stored pixels.
        orientation: 1..8, EXIF 2.32, tag 0x0112.
    """
    x1, y1, x2, y2 = boxes.T
    if orientation in (2, 3, 7, 8):  # the stored left becomes the right, or (turned) the bottom
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    if orientation >= 5:
        x1, y1, x2, y2 = y1, x1, y2, x2
    return np.stack([x1, y1, x2, y2], axis=1)


def _read(path: str, sixteen_bit: str = "") -> ImageFacts:
    """Decode one file; whatever its bytes do to the decoder is a fault of the file."""
    if not os.path.isfile(path):
        return ImageFacts("missing", "the image file does not exist")
    if os.path.getsize(path) == 0:
        return ImageFacts("unreadable", "the image file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken metadata; the pixels decide
            with Image.open(path) as image:
                return _decode(image, path, sixteen_bit)
    except Exception as error:  # Pillow's decoders raise many kinds
        return ImageFacts("unreadable", f"the image {why_unreadable(error)}")


def _decode(image: ImageFile.ImageFile, path: str, sixteen_bit: str) -> ImageFacts:
    width, height = image.size
    try:
        image.load()
    except OSError as error:
        reason = str(error).lower()
        if "truncated" in reason or "end of file" in reason or "not processed" in reason:
            return ImageFacts("truncated", f"the image file ends too early: {error}")
        raise
    if image.mode in DEEP_MODES:
        try:
            eight_bits(np.asarray(image), image.mode, sixteen_bit, path)
        except InputError as error:
            return ImageFacts("deep", str(error).removeprefix(f"{path}: "))
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
    if image.palette is not None:
        digest.update(bytes(image.palette.palette))
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Detectron2 continues without the tag too
        orientation = 1
    orientation = orientation if orientation in range(1, 9) else 1
    return ImageFacts("", "", width, height, orientation, digest.hexdigest())


def _extents(table: DatasetTable) -> np.ndarray:
    """(N, 2): how far to the right and down the boxes of each image reach; 0 without boxes."""
    extents = np.zeros((len(table.files), 2))
    rows = np.flatnonzero(usable_boxes(table))
    np.maximum.at(extents, table.image_of[rows], table.xyxy[rows, 2:])
    return extents


def _fits(extent: np.ndarray, size: tuple[int, int]) -> bool:
    return bool((extent <= np.array(size) + BORDER_TOLERANCE).all())


def _at(code: str, rows: list[int], message: object) -> Fault:
    return Fault(code, "image", np.array(rows, dtype=np.int64), message)  # type: ignore[arg-type]
