"""All boxes of a dataset in a few arrays: what every annotation format is read into.

N: images, M: boxes of all of them, K: classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ...boxes import BoxChanges, within_images

__all__ = ["BoxTable", "Inputs", "Source", "paused_gc"]


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
        bad: images that are not there or cannot be read, by path, and why, as in "does not exist";
            only those that a reader has looked at. Their sizes are 0 where nothing records them.
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
    bad: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.file_names)

    def within_images(self) -> tuple[BoxTable, BoxChanges]:
        """This table with the boxes that training and evaluation count, and what was changed."""
        boxes, changes = within_images(self.boxes, np.repeat(self.sizes, np.diff(self.starts), 0))
        kept = changes.kept
        if kept.all() and not (changes.turned.any() or changes.cut.any()):
            return self, changes
        table = dataclasses.replace(
            self,
            starts=np.cumsum([0, *kept])[self.starts],
            boxes=boxes[kept],
            classes=self.classes[kept],
            crowd=self.crowd[kept],
        )
        return table, changes

    def show_box(self, row: int) -> str:
        """``"a.jpg [x1, y1, x2, y2]"`` of a box, for messages."""
        image = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"{self.file_names[image]} [{', '.join(f'{x:g}' for x in self.boxes[row])}]"

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
        """Write a file in numpy's ``.npz`` format: arrays and json, nothing that could run code."""
        text = {
            "class_names": self.class_names,
            "declared": self.declared,
            "file_names": self.file_names,
            "category_ids": self.category_ids,
            "bad": self.bad,
            "inputs": inputs,
        }
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with open(path, "wb") as file:  # to a path, numpy would add its own ending
            np.savez(file, text=np.frombuffer(json.dumps(text).encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, path: str) -> tuple[BoxTable, Inputs]:
        """The inverse of :meth:`save`."""
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(file["text"].tobytes().decode())
            arrays = {name: file[name] for name in _ARRAYS}
        inputs = Inputs((name, tuple(state)) for name, state in text.pop("inputs").items())
        return cls(**text, **arrays), inputs


_ARRAYS = ("image_ids", "sizes", "starts", "boxes", "classes", "crowd")


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
    """What changes with the file; (0, -1) while it is not there."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):  # also a name that no file can have
        return 0, -1
    return state.st_mtime_ns, state.st_size
