"""CSV with one box per row: keras-retinanet's ``path,x1,y1,x2,y2,class``."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import InputError, MissingFileError
from .builder import TableBuilder
from .places import Place, find_in_one_of, find_place, say_found
from .table import BoxTable, Inputs, Source
from .text import parse_number, read_class_file, read_rows

__all__ = ["read_csv"]

CONVENTION = "path,x1,y1,x2,y2,class"
# Names of the columns in files that begin with a row of them, such as TensorFlow's.
COLUMNS = (
    ("path", "filename", "file_name", "file", "image", "image_path", "img_path"),
    ("x1", "xmin", "x_min"),
    ("y1", "ymin", "y_min"),
    ("x2", "xmax", "x_max"),
    ("y2", "ymax", "y_max"),
    ("class", "class_name", "label", "name"),
)


def read_csv(source: Source, inputs: Inputs) -> BoxTable:
    """Read rows of ``path,x1,y1,x2,y2,class``: absolute XYXY pixels, the image's corner at 0.

    A row with nothing but a path is an image without objects. Other columns, in any order, may be
    named by a first row. Paths start from ``images``, or from the file's own folder.

    Raises:
        ValueError: names file, line and fault.
        FileNotFoundError: no image is there. Single ones are :attr:`BoxTable.bad`.
    """
    path = source.annotations
    names = read_class_file(source.classes, inputs) if source.classes else None
    builder = TableBuilder(names, inputs)
    rows = list(read_rows(path, inputs))
    columns, most = list(range(len(COLUMNS))), len(COLUMNS)
    if rows and (header := _header(rows[0][1], f"{path}, line {rows[0][0]}")):
        columns, most = header, len(rows[0][1])
        del rows[0]
    place = _place([(i, x[columns[0]]) for i, x in rows if columns[0] < len(x)], source)
    images: dict[str, int] = {}
    for line, fields in rows:
        where = f"{path}, line {line}"
        if len(fields) == 1 and columns[0] == 0:  # a path, and no object
            _refuse_delimiter(fields[0], where)
            fields = fields + [""] * max(columns)
        if len(fields) <= max(columns):
            raise InputError(f"{where}: has {len(fields)} fields; a row is {CONVENTION}")
        if any(fields[most:]):  # a decimal comma is one way to them, and moves all that follow
            raise InputError(
                f"{where}: has {len(fields)} fields, but {most} columns; a comma within a field "
                "needs quotes, and numbers have a decimal point"
            )
        name, *corners, label = (fields[column] for column in columns)
        image = os.path.normpath(place.path(name))
        if not name:
            raise InputError(f"{where}: has no path; a row is {CONVENTION}")
        if image not in images:
            if os.path.isfile(image):  # unlike pathlib, for names of any length
                images[image] = builder.add_image(image)
            else:
                why = f"does not exist ({os.path.basename(path)}, line {line})"
                images[image] = builder.add_bad_image(image, why)
        if not any(corners) and not label:
            continue
        if not label:
            raise InputError(f"{where}: has a box but no class")
        box = [
            parse_number(x, where, what)
            for x, what in zip(corners, ("x1", "y1", "x2", "y2"), strict=True)
        ]
        builder.add_box(images[image], box, builder.class_index(label, where))
    if not images:
        raise InputError(f"{path}: has no rows of {CONVENTION}")
    _require_some(list(images), rows[0][0], path)
    return builder.build()


def _place(paths: list[tuple[int, str]], source: Source) -> Place:
    """Where the images are: the rows may have been written on another machine.

    Args:
        paths: line and path of each row.
        source: its ``images`` are the only folder that is looked into, if there are any.
    """
    folder = source.images or os.path.dirname(source.annotations)
    names = list(dict.fromkeys(name for _, name in paths if name))
    others = [] if source.images else [os.path.join(folder, "images")]
    place = find_place(names, [folder, *others])
    if place is None and not source.images and os.path.isdir(folder):
        place = find_in_one_of(names, Path(folder))
    place = place or Place(folder)
    if place != Place(folder):
        say_found(source.annotations, names, place)
    return place


def _refuse_delimiter(field: str, where: str) -> None:
    for delimiter in ";\t| ":
        if field.count(delimiter) >= len(COLUMNS) - 1:
            raise InputError(
                f"{where}: has fields between {delimiter!r}, but must have them between commas: "
                f"{CONVENTION}"
            )


def _require_some(images: list[str], line: int, path: str) -> None:
    """Raise FileNotFoundError where none of ``images`` is there; ``line`` names the first."""
    if not any(map(os.path.isfile, images)):
        raise MissingFileError(
            f"{path}, line {line}: there is no image {images[0]}, nor any other that its rows "
            f"name; name the folder that they start from, as {path}:IMAGE_DIR or IMAGES"
        )


def _header(fields: list[str], where: str) -> list[int] | None:
    """Index of each of COLUMNS if the first row names columns, else None."""
    lower = [field.lower() for field in fields]
    found = [next((lower.index(x) for x in names if x in lower), None) for names in COLUMNS]
    if all(index is None for index in found[1:5]):
        return None
    for names, index in zip(COLUMNS, found, strict=True):
        if index is not None and lower.count(lower[index]) > 1:
            raise InputError(f"{where}: names the column {lower[index]} twice ({names[0]})")
    missing = [names[0] for names, index in zip(COLUMNS, found, strict=True) if index is None]
    if missing:
        raise InputError(f"{where}: names columns, but none for {', '.join(missing)}")
    return [index for index in found if index is not None]
