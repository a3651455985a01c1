"""CSV with one box per row: keras-retinanet's ``path,x1,y1,x2,y2,class``."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import InputError, MissingFileError
from .builder import TableBuilder
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
        FileNotFoundError: an image is missing; names file and line.
    """
    path = source.annotations
    names = read_class_file(source.classes, inputs) if source.classes else None
    builder = TableBuilder(names, inputs)
    folder = source.images or os.path.dirname(path)
    columns: list[int] | None = None
    most = len(COLUMNS)
    images: dict[str, int] = {}
    for line, fields in read_rows(path, inputs):
        where = f"{path}, line {line}"
        if columns is None:
            header = _header(fields, where)
            columns = header or list(range(len(COLUMNS)))
            if header:
                most = len(fields)
                continue
        if len(fields) == 1 and columns[0] == 0:  # a path, and no object
            fields = fields + [""] * max(columns)
        if len(fields) <= max(columns):
            raise InputError(f"{where}: has {len(fields)} fields; a row is {CONVENTION}")
        if any(fields[most:]):  # a decimal comma is one way to them, and moves all that follow
            raise InputError(
                f"{where}: has {len(fields)} fields, but {most} columns; a comma within a field "
                "needs quotes, and numbers have a decimal point"
            )
        name, *corners, label = (fields[column] for column in columns)
        image = os.path.normpath(os.path.join(folder, name))
        if not name:
            raise InputError(f"{where}: has no path; a row is {CONVENTION}")
        if image not in images:
            if not Path(image).is_file():
                raise MissingFileError(f"{where}: there is no image {image}")
            images[image] = builder.add_image(image)
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
    return builder.build()


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
