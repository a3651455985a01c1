"""A dataset's annotations as columns, whatever format they came from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ...errors import InputError, MissingFileError
from ..formats.plain_text import read_json
from ..formats.table import paused_gc
from ..formats.text import parent_ids
from .columns import box_columns, flag_or_fault, positions, size_or_nan

__all__ = ["DatasetTable", "from_coco_content", "from_coco_json", "from_dataset_dicts"]


@dataclass(frozen=True, eq=False)
class DatasetTable:
    """N images and M boxes; row i is entry i of the file's lists, faulty entries included.

    Attributes:
        name: what messages call the dataset.
        source: the annotation file, or the name again.
        files: N paths; "" where none is recorded.
        image_ids: N ids as recorded; None where there is none.
        sizes: (N, 2) float64, recorded width and height in pixels; NaN where there is none.
        bboxes: (M, 4) float64 as recorded; NaN in each row of ``malformed``.
        is_xywh: (M,) bool, how ``bboxes`` is meant: XYWH, or else XYXY, both in pixels.
        malformed: (M,) bool, a bbox that is not four numbers or not in a mode known here.
        as_text: (M,) bool, a bbox whose numbers are written as texts.
        wrong_flags: what is wrong with ``iscrowd`` or ``ignore``, by row.
        image_of: (M,) int64, the first image with the box's image id; -1 where there is none.
        class_of: (M,) int64 index into ``class_names``; -1 for an unknown category.
        is_crowd: (M,) bool, ``iscrowd`` or ``ignore``: takes no part in counts.
        annotation_ids, recorded_image_ids, recorded_categories: M values as recorded.
        class_names, category_ids: K each, in the order of the ids.
        needs_ids: whether each annotation must have an id of its own, as in a COCO json.
        knows_folder: whether ``files`` are meant to be there; False for only a json.
        no_images: why none of the files was found; "" if some were, or nobody looked.
        classes_by_name: whether training and validation set are matched by the names of classes;
            else by their order.
        file_names: N names as recorded; "" where there is none.
    """

    name: str
    source: str
    files: list[str]
    image_ids: list[Any]
    sizes: np.ndarray
    bboxes: np.ndarray
    is_xywh: np.ndarray
    malformed: np.ndarray
    as_text: np.ndarray
    wrong_flags: dict[int, str]
    image_of: np.ndarray
    class_of: np.ndarray
    is_crowd: np.ndarray
    annotation_ids: list[Any]
    recorded_image_ids: list[Any]
    recorded_categories: list[Any]
    class_names: list[str]
    category_ids: list[Any]
    needs_ids: bool = False
    knows_folder: bool = True
    no_images: str = ""
    classes_by_name: bool = False
    file_names: list[str] = field(default_factory=list)

    @cached_property
    def xyxy(self) -> np.ndarray:
        """(M, 4) corners in pixels, as computed from what is recorded, right or wrong."""
        corners = self.bboxes.copy()
        corners[self.is_xywh, 2:] += corners[self.is_xywh, :2]
        return corners

    @cached_property
    def image_sizes_of_boxes(self) -> np.ndarray:
        """(M, 2) recorded width and height of each box's image; NaN where unknown."""
        if not len(self.sizes):
            return np.full((len(self.bboxes), 2), np.nan)
        sizes = self.sizes[self.image_of]
        sizes[self.image_of < 0] = np.nan
        return sizes

    def file_of_box(self, row: int) -> str:
        """Path of the image that a box lies in; "" where there is none."""
        image = self.image_of[row]
        return self.files[image] if image >= 0 else ""


class _Annotation(NamedTuple):
    """What is kept of an annotation: a tenth of its memory with a polygon."""

    id: Any
    image_id: Any
    category_id: Any
    bbox: Any
    is_crowd: bool
    mode: int = int(BoxMode.XYWH_ABS)
    wrong_flag: str = ""


def from_coco_json(
    json_file: str | os.PathLike[str], image_root: str | os.PathLike[str] = "", name: str = ""
) -> DatasetTable:
    """Read a COCO json, masks left out; nothing but its outer form has to be right.

    Args:
        json_file: annotations in COCO's instances format.
        image_root: folder that file names start from; default: the json's folder.
        name: for messages; default: the json's path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no json, or has no lists of images, annotations and categories.
    """
    json_file = os.fspath(json_file)
    if not PathManager.isfile(json_file):
        raise MissingFileError(f"annotation file '{json_file}' does not exist")
    with paused_gc():
        content = read_json(json_file, _shrink)
        return from_coco_content(content, json_file, image_root, name)


def from_coco_content(
    content: Any, json_file: str, image_root: str | os.PathLike[str] = "", name: str = ""
) -> DatasetTable:
    """The same of a json's content that was read already."""
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"'{json_file}' is no COCO json: it has no list '{key}'")
    images = [x if isinstance(x, dict) else {} for x in content["images"]]
    categories = [x for x in content["categories"] if isinstance(x, dict)]
    root = os.fspath(image_root) or os.path.dirname(json_file)
    names = [x.get("file_name") for x in images]
    names = [x.replace("\\", "/") if isinstance(x, str) else "" for x in names]
    with contextlib.suppress(TypeError):  # ids of several types have no order
        categories.sort(key=lambda x: x.get("id", 0))
    annotations = [_compact(x) for x in content["annotations"]]
    parents = parent_ids(categories, {str(x.category_id) for x in annotations})
    called = [x.get("name") for x in categories]  # what is there twice is a finding
    categories = [
        x for x in categories if str(x.get("id")) not in parents or called.count(x.get("name")) > 1
    ]
    return _build_table(
        name=name or json_file,
        source=json_file,
        files=[os.path.join(root, x) if x else "" for x in names],
        file_names=names,
        image_ids=[x.get("id") for x in images],
        sizes=[(x.get("width"), x.get("height")) for x in images],
        annotations=annotations,
        class_names=[str(x.get("name")) for x in categories],
        category_ids=[x.get("id") for x in categories],
        needs_ids=True,
        knows_folder=bool(image_root),
    )


def from_dataset_dicts(
    dicts: Sequence[dict[str, Any]], class_names: Sequence[str], name: str, source: str = ""
) -> DatasetTable:
    """The table of Detectron2's dataset dicts, of any format's reader.

    Args:
        dicts: with absolute "file_name"; an annotation's "category_id" is in [0, K). An "id" of an
            annotation is shown in messages if there is one.
        class_names: K names.
        name: for messages.
        source: the file that the annotations come from; default: ``name``.
    """
    annotations = []
    for row, record in enumerate(dicts):
        for x in record.get("annotations", ()):
            crowd = bool(x.get("iscrowd", 0) or x.get("ignore", 0))
            mode = int(x.get("bbox_mode", -1))
            bbox, category = x.get("bbox"), x.get("category_id")
            annotations.append(_Annotation(x.get("id"), row, category, bbox, crowd, mode))
    table = _build_table(
        name=name,
        source=source or name,
        files=[os.fspath(x.get("file_name", "")) for x in dicts],
        image_ids=list(range(len(dicts))),  # those of the dicts may be missing
        sizes=[(x.get("width"), x.get("height")) for x in dicts],
        annotations=annotations,
        class_names=[str(x) for x in class_names],
        category_ids=list(range(len(class_names))),
    )
    table.image_ids[:] = [x.get("image_id", row) for row, x in enumerate(dicts)]
    table.recorded_image_ids[:] = [table.image_ids[x.image_id] for x in annotations]
    return table


def _shrink(found: dict[str, Any]) -> Any:
    """Keep little of each annotation while the file is parsed."""
    if "image_id" in found and "file_name" not in found:
        return _compact(found)
    return None if "counts" in found and "size" in found else found  # a mask


def _compact(found: Any) -> _Annotation:
    if isinstance(found, _Annotation):
        return found
    if not isinstance(found, dict):
        return _Annotation(None, None, None, None, False)
    crowd, wrong = flag_or_fault(found)
    bbox, category = found.get("bbox"), found.get("category_id")
    id_, image_id = found.get("id"), found.get("image_id")
    return _Annotation(id_, image_id, category, bbox, crowd, wrong_flag=wrong)


def _build_table(
    *,
    annotations: list[_Annotation],
    image_ids: list[Any],
    category_ids: list[Any],
    sizes: list[tuple[Any, Any]],
    **columns: Any,
) -> DatasetTable:
    bboxes, malformed, as_text = box_columns([x.bbox for x in annotations])
    modes = np.fromiter((x.mode for x in annotations), np.int64, len(annotations))
    is_xywh = modes == int(BoxMode.XYWH_ABS)
    malformed |= ~is_xywh & (modes != int(BoxMode.XYXY_ABS))
    bboxes[malformed] = np.nan
    return DatasetTable(
        image_ids=image_ids,
        sizes=np.array([size_or_nan(*x) for x in sizes], dtype=float).reshape(-1, 2),
        bboxes=bboxes,
        is_xywh=is_xywh,
        malformed=malformed,
        as_text=as_text & ~malformed,
        wrong_flags={i: x.wrong_flag for i, x in enumerate(annotations) if x.wrong_flag},
        image_of=positions(image_ids, [x.image_id for x in annotations]),
        class_of=positions(category_ids, [x.category_id for x in annotations]),
        is_crowd=np.fromiter((x.is_crowd for x in annotations), bool, len(annotations)),
        annotation_ids=[x.id for x in annotations],
        recorded_image_ids=[x.image_id for x in annotations],
        recorded_categories=[x.category_id for x in annotations],
        category_ids=category_ids,
        **columns,
    )
