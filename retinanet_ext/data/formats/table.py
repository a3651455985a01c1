"""All boxes of a dataset in a few arrays: what every annotation format is read into.

N: images, M: boxes of all of them, K: classes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ...errors import InputError
from .images import read_sizes

__all__ = ["BoxTable", "Inputs", "Source", "TableBuilder", "paused_gc"]

DECIMALS = 3  # of a pixel: the same box is then the same number in every format


@dataclass(frozen=True)
class Source:
    """Where annotations are, and how to read them; paths are absolute.

    Attributes:
        annotations: file or folder.
        images: folder of the images; "" to look for it near the annotations.
        format: "coco", "voc", "yolo" or "csv".
        classes: file of class names, for formats that have no list of them; "" for none.
        subset: which list of a YOLO data.yaml: "train", "val" or "test".
        one_based: VOC's convention: the first pixel of a row has the coordinate 1.
    """

    annotations: str
    images: str = ""
    format: str = ""
    classes: str = ""
    subset: str = ""
    one_based: bool = True


class Inputs(dict[str, tuple[int, int]]):
    """Path -> (modification time in ns, size in bytes) of every file and folder that was read."""

    def add(self, path: str | os.PathLike) -> None:
        """Call it before reading: a change in between then counts as a change."""
        key = os.fspath(path)
        if key not in self:
            self[key] = _state(key)

    def unchanged(self) -> bool:
        """Whether all of them are still as they were."""
        try:
            return all(_state(path) == state for path, state in self.items())
        except OSError:
            return False


@dataclass
class BoxTable:
    """A dataset as arrays, which take far less memory and time to load than Detectron2's dicts.

    Attributes:
        class_names: K names.
        declared: whether the dataset lists its classes; else these are the ones it happens to use.
        file_names: N paths.
        image_ids: (N,) int64.
        sizes: (N, 2) int64, height and width in pixels as Detectron2 reads the image, after EXIF.
        starts: (N + 1,) int64; the boxes of image i are ``starts[i]`` to ``starts[i + 1]``.
        boxes: (M, 4) float64, absolute XYXY in pixels, the image's corner at 0.
        classes: (M,) int64, index into ``class_names``.
        crowd: (M,) bool, neither object nor background: COCO's iscrowd, VOC's difficult.
        category_ids: K ids of a COCO json that can be the ground truth of an evaluation as it is;
            empty for any other.
    """

    class_names: list[str]
    declared: bool
    file_names: list[str]
    image_ids: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    category_ids: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.file_names)

    def records(
        self, images: Iterable[int] | None = None, class_map: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Detectron2's dataset dicts.

        Args:
            images: which images, by index; default: all.
            class_map: new index of each of the K classes, below 0 to leave its boxes out.
        """
        new_class = range(len(self.class_names)) if class_map is None else class_map
        chosen = range(len(self)) if images is None else images
        with paused_gc():
            return [self._record(i, new_class) for i in chosen]

    def _record(self, index: int, new_class: Sequence[int]) -> dict[str, Any]:
        rows = slice(self.starts[index], self.starts[index + 1])
        height, width = self.sizes[index].tolist()
        annotations = [
            {
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": new_class[old],
                "iscrowd": int(crowd),
            }
            for box, old, crowd in zip(
                self.boxes[rows].tolist(),
                self.classes[rows].tolist(),
                self.crowd[rows].tolist(),
                strict=True,
            )
            if new_class[old] >= 0
        ]
        return {
            "file_name": self.file_names[index],
            "height": height,
            "width": width,
            "image_id": int(self.image_ids[index]),
            "annotations": annotations,
        }

    def save(self, path: str, inputs: Inputs) -> None:
        """Write an ``.npz`` file that holds arrays and json, nothing that could run code."""
        text = {
            "class_names": self.class_names,
            "declared": self.declared,
            "file_names": self.file_names,
            "category_ids": self.category_ids,
            "inputs": inputs,
        }
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(path, text=np.frombuffer(json.dumps(text).encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, path: str) -> tuple[BoxTable, Inputs]:
        """The inverse of :meth:`save`."""
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(file["text"].tobytes().decode())
            arrays = {name: file[name] for name in _ARRAYS}
        inputs = Inputs((name, tuple(state)) for name, state in text.pop("inputs").items())
        return cls(**text, **arrays), inputs


_ARRAYS = ("image_ids", "sizes", "starts", "boxes", "classes", "crowd")


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

    def add_image(
        self, path: str, height: int = 0, width: int = 0, image_id: int | None = None
    ) -> int:
        """Add an image and return its index; with a size of 0 it is read from the file."""
        self._images.append((path, height, width))
        self._rows.append([])
        self._ids.append(len(self._ids) + 1 if image_id is None else image_id)
        return len(self._images) - 1

    def class_index(self, name: str, where: str) -> int:
        """Index of a class; one that is not in a list of classes raises, with ``where``."""
        if name not in self._index:
            if self.declared:
                known = ", ".join(list(self._index)[:10])
                raise InputError(f"{where}: class '{name}' is not in the list of classes ({known})")
            self._index[name] = len(self._index)
        return self._index[name]

    def add_box(self, image: int, box: Sequence[float], index: int, crowd: bool = False) -> None:
        """Add a box, XYXY: in pixels, or for ``build(normalised=True)`` in [0, 1]."""
        self._rows[image].append((box, index, crowd))

    def build(self, category_ids: Sequence[int] = (), normalised: bool = False) -> BoxTable:
        """The table; ``normalised`` boxes are multiplied by the size of their image."""
        sizes = self._sizes()
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
        )

    def _sizes(self) -> np.ndarray:
        unknown = [path for path, height, width in self._images if height <= 0 or width <= 0]
        for path in unknown:
            self._inputs.add(path)
        read: Mapping[str, tuple[int, int]] = read_sizes(unknown)
        sizes = [read.get(path, (height, width)) for path, height, width in self._images]
        return np.array(sizes, np.int64).reshape(-1, 2)


@contextlib.contextmanager
def paused_gc() -> Iterator[None]:
    """No search for cyclic garbage meanwhile: among millions of new objects it takes most time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _state(path: str) -> tuple[int, int]:
    state = os.stat(path)
    return state.st_mtime_ns, state.st_size
