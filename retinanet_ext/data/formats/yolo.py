"""YOLO: a data.yaml, folders of images, and one txt file per image."""

from __future__ import annotations

import logging
import os
from typing import Any

from ...errors import InputError, MissingFileError, listed
from .builder import TableBuilder
from .data_yaml import load_data_yaml, yolo_images
from .images import is_hidden
from .plain_text import read_text
from .table import BoxTable, Inputs, Source
from .text import parse_name, parse_number, unique_names

__all__ = ["read_yolo"]

logger = logging.getLogger(__name__)

MOST_DIGITS = 18  # of the number of a class
TOLERANCE = 0.01  # tools write coordinates slightly above 1


def read_yolo(source: Source, inputs: Inputs) -> BoxTable:
    """Read one list of images of a data.yaml and the labels beside them.

    The labels of ``.../images/a.jpg`` are in ``.../labels/a.txt``, or else in ``a.txt`` beside it;
    with ``kpt_shape``, the keypoints after each box are passed over. A row
    is ``class cx cy w h``, or ``class x1 y1 x2 y2 x3 y3 ...`` of a polygon, whose bounds are taken;
    all are shares of the image's size. An image without a file has no objects.

    Raises:
        ValueError: names file, line and fault.
        FileNotFoundError: images are missing, or all labels are.
    """
    path = source.annotations
    inputs.add(path)
    content = load_data_yaml(path)
    names = content["names"]
    pairs = _classes(names, path)
    class_of = {number: i for i, (number, _) in enumerate(pairs)}
    builder = TableBuilder(unique_names([name for _, name in pairs], f"{path}, names"), inputs)
    keypoints = _keypoint_numbers(content, path)
    if "nc" in content and content["nc"] != len(pairs):
        raise InputError(f"{path}: nc is {content['nc']}, but there are {len(pairs)} names")
    images, whole = yolo_images(source, content, inputs)
    labelled = 0
    used: dict[str, set[str]] = {}
    owner: dict[str, str] = {}
    for image in images:
        labels = _label_file(image)
        inputs.add(os.path.dirname(image))
        index = builder.add_image(image)
        used.setdefault(os.path.dirname(labels), set()).add(os.path.basename(labels))
        if os.path.isdir(folder := os.path.dirname(labels)):
            inputs.add(folder)  # a label file may appear
        if os.path.isfile(labels):
            labelled += 1
            if owner.setdefault(labels, image) != image:
                raise InputError(
                    f"{labels} are the labels of two pictures, {owner[labels]} and {image}; remove "
                    "or rename one of them"
                )
            _read_labels(labels, index, class_of, builder, inputs, keypoints)
        elif os.path.lexists(labels):
            raise InputError(
                f"{labels} should be the labels of {image}, but is a folder or a link to nothing"
            )
    if not labelled:
        raise MissingFileError(
            f"{path}: none of the {len(images)} images has a label file; looked for "
            f"{_label_file(images[0])} and so on"
        )
    if whole:
        _warn_of_left_over_labels(path, used)
    return builder.build(normalised=True)


def _warn_of_left_over_labels(path: str, used: dict[str, set[str]]) -> None:
    """Labels whose picture is not there, or has a suffix that is not known, would be missed."""
    left = []
    for folder, names in used.items():
        if os.path.isdir(folder):
            found = sorted(x.name for x in os.scandir(folder) if x.name.lower().endswith(".txt"))
            known = {*names, "classes.txt"}
            left += [os.path.join(folder, x) for x in found if x not in known and not is_hidden(x)]
    if left:
        logger.warning(
            "%s: %d label files have no picture that can be read, first %s",
            path,
            len(left),
            left[0],
        )


def _label_file(image: str) -> str:
    head, found, tail = image.rpartition(f"{os.sep}images{os.sep}")
    stem = os.path.splitext(f"{head}{os.sep}labels{os.sep}{tail}" if found else image)[0]
    beside = os.path.splitext(image)[0] + ".txt"
    if found and os.path.isfile(f"{stem}.txt"):  # else tools leave empty files beside the pictures
        return f"{stem}.txt"
    return beside if os.path.isfile(beside) else f"{stem}.txt"


def _read_labels(
    path: str,
    image: int,
    class_of: dict[int, int],
    builder: TableBuilder,
    inputs: Inputs,
    keypoints: int,
) -> None:
    inputs.add(path)
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, line {number}"
        builder.add_box(
            image,
            _box(_without_keypoints(fields[1:], keypoints, where), where),
            class_of[_class_number(fields[0], class_of, where)],
        )


def _class_number(text: str, class_of: dict[int, int], where: str) -> int:
    if text.isdecimal() and len(text) <= MOST_DIGITS and int(text) in class_of:
        return int(text)
    shown = text if len(text) <= MOST_DIGITS else f"{text[:MOST_DIGITS]}..."
    raise InputError(f"{where}: class is '{shown}', but data.yaml knows {listed(list(class_of))}")


def _without_keypoints(fields: list[str], keypoints: int, where: str) -> list[str]:
    """The numbers of the box; those of a pose's keypoints come after it."""
    if not keypoints or len(fields) == 4:
        return fields
    if len(fields) != 4 + keypoints:
        raise InputError(
            f"{where}: has {len(fields)} numbers after the class, but with data.yaml's kpt_shape a "
            f"row has 4 and {keypoints} of keypoints"
        )
    return fields[:4]


def _keypoint_numbers(content: dict[str, Any], path: str) -> int:
    """How many numbers of keypoints follow each box; 0 where the labels are no poses."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    fine = isinstance(shape, list) and len(shape) == 2 and all(type(x) is int for x in shape)
    if not fine or shape[0] < 1 or shape[1] not in (2, 3):
        raise InputError(
            f"{path}: kpt_shape is {shape!r}, but must be [number of keypoints, 2 or 3]"
        )
    return shape[0] * shape[1]


def _classes(names: Any, path: str) -> list[tuple[int, str]]:
    """Number and name of each class, in the order of the numbers."""
    found: dict[int, str] = {}
    for key, value in names.items() if isinstance(names, dict) else enumerate(names):
        number = parse_number(key, f"{path}, names", "the number of a class")
        if number != int(number) or number < 0 or int(number) in found:
            raise InputError(
                f"{path}, names: {key!r} is no number of a class from 0, or is there twice"
            )
        found[int(number)] = parse_name(value, f"{path}, names, class {int(number)}")
    return sorted(found.items())


def _box(fields: list[str], where: str) -> tuple[float, float, float, float]:
    """Normalised XYXY."""
    if len(fields) != 4 and (len(fields) < 6 or len(fields) % 2):
        raise InputError(
            f"{where}: has {len(fields)} numbers after the class; a box has 4, a polygon 6 or more "
            "and an even number"
        )
    values = [parse_number(field, where, "coordinate") for field in fields]
    for value in values:
        if not -TOLERANCE <= value <= 1 + TOLERANCE:
            raise InputError(
                f"{where}: {value} is not within 0 and 1; YOLO's coordinates are shares of the "
                "image's width and height"
            )
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
