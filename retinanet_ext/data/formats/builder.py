"""Puts a table of boxes together from the images and boxes that a format's reader finds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ...errors import InputError, listed
from .images import read_sizes
from .table import BoxTable, Inputs

__all__ = ["CONTROL", "SIDES", "TableBuilder", "is_ground_truth"]

SIDES = ("height", "width")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
DECIMALS = 3  # of a pixel: the same box is then the same number in every format


class TableBuilder:
    """Collects images and their boxes in the order of the annotations.

    Args:
        class_names: the classes that the dataset lists; None if it lists none, and the classes are
            the names that occur, sorted.
        inputs: gets the images whose size had to be read.
    """

    def __init__(self, class_names: Sequence[str] | None, inputs: Inputs):
        self.declared = class_names is not None
        self._index: dict[str, int] = {name: i for i, name in enumerate(class_names or ())}
        self._inputs = inputs
        self._images: list[tuple[str, int, int]] = []
        self._rows: list[list[tuple[Sequence[float], int, bool]]] = []
        self._ids: list[int] = []
        self._bad: dict[str, str] = {}

    def add_image(
        self, path: str, height: int = 0, width: int = 0, image_id: int | None = None
    ) -> int:
        """Add an image and return its index; with a size of 0 it is read from the file."""
        self._images.append((path, height, width))
        self._rows.append([])
        self._ids.append(len(self._ids) + 1 if image_id is None else image_id)
        return len(self._images) - 1

    def add_bad_image(self, path: str, why: str, height: int = 0, width: int = 0) -> int:
        """Add an image that cannot be read, and why; see :attr:`BoxTable.bad`."""
        self._bad.setdefault(path, why)
        return self.add_image(path, height, width)

    def class_index(self, name: str, where: str) -> int:
        """Index of a class; one that is not in a list of classes raises, with ``where``."""
        if name not in self._index:
            if self.declared:
                known = listed(list(self._index))
                raise InputError(f"{where}: class '{name}' is not in the list of classes ({known})")
            if CONTROL.search(name):
                raise InputError(f"{where}: class {name!r} holds a control character; remove it")
            self._index[name] = len(self._index)
        return self._index[name]

    def add_box(self, image: int, box: Sequence[float], index: int, crowd: bool = False) -> None:
        """Add a box, XYXY: in pixels, or for ``build(normalised=True)`` in [0, 1]."""
        self._rows[image].append((box, index, crowd))

    def build(self, category_ids: Sequence[int] = (), normalised: bool = False) -> BoxTable:
        """The table; ``normalised`` boxes are multiplied by the size of their image.

        Those of an image that cannot be read are left out then: they are nowhere.
        """
        sizes = self._sizes()
        if normalised and self._bad:
            for image, (path, _, _) in enumerate(self._images):
                if path in self._bad:
                    self._rows[image] = []
        names, order = list(self._index), None
        if not self.declared:
            order = np.argsort(np.argsort(names)) if names else None
            names = sorted(names)
        counts = [len(rows) for rows in self._rows]
        flat = [row for rows in self._rows for row in rows]
        boxes = np.array([row[0] for row in flat], np.float64).reshape(-1, 4)
        if normalised:
            boxes = boxes * np.repeat(np.tile(sizes[:, ::-1], 2), counts, axis=0)
        classes = np.array([row[1] for row in flat], np.int64)
        return BoxTable(
            class_names=names,
            declared=self.declared,
            file_names=[path for path, _, _ in self._images],
            image_ids=np.array(self._ids, np.int64),
            sizes=sizes,
            starts=np.cumsum([0, *counts]),
            boxes=boxes.round(DECIMALS),
            classes=classes if order is None else order[classes],
            crowd=np.array([row[2] for row in flat], bool),
            category_ids=list(category_ids),
            bad=self._bad,
        )

    def _sizes(self) -> np.ndarray:
        unknown = [path for path, height, width in self._images if height <= 0 or width <= 0]
        for path in unknown:
            self._inputs.add(path)
        read, bad = read_sizes([path for path in unknown if path not in self._bad])
        self._bad |= bad
        sizes = [read.get(path, (height, width)) for path, height, width in self._images]
        return np.array(sizes, np.int64).reshape(-1, 2)


def is_ground_truth(content: dict[str, Any]) -> bool:
    """Whether COCO's code can evaluate with the file itself: numbers where it wants numbers.

    Ids of annotations are unique and not 0, nothing is ``ignore``, images have their sizes.
    """
    annotations = content["annotations"]
    if not {type(a.get("id")) for a in annotations} <= {int}:
        return False
    ids = {a["id"] for a in annotations}
    return (
        len(ids) == len(annotations)
        and 0 not in ids
        and all(type(c["id"]) is int for c in content["categories"])
        and not any(a.get("ignore") for a in annotations)
        and all(a.get("iscrowd", 0) in (0, 1) for a in annotations)
        and set(map(type, chain.from_iterable(a["bbox"] for a in annotations))) <= {int, float}
        and all(
            type(x.get(side)) is int and x[side] > 0 for x in content["images"] for side in SIDES
        )
    )
