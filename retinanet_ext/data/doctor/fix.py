"""A corrected copy of a COCO json, and a list of what was changed."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .boxes import corners_are_certain, normalised_layout
from .checks import find_faults
from .coco_file import corrections_of, xywh
from .findings import Change, Fault
from .ids import repeated
from .images import ImageFacts, turn_boxes
from .leakage import compare_tables
from .table import DatasetTable, from_coco_content

__all__ = ["clean"]

MAX_ROUNDS = 6  # a correction may uncover the next fault, but not for ever

# Images and annotations that no correction saves.
_DROP_IMAGES = ("missing_image", "unreadable_image", "truncated_image", "leakage", "missing_id")
_DROP_BOXES = (
    "box_malformed",
    "box_not_finite",
    "box_no_area",
    "box_outside",
    "duplicate_box",
    "unknown_category",
    "unknown_image",
)
_NEW_IDS = ("duplicate_annotation_id", "missing_id", "annotation_id_zero")


def clean(
    content: dict[str, Any],
    json_file: str,
    image_root: str | os.PathLike[str] = "",
    val: DatasetTable | None = None,
    facts: Mapping[str, ImageFacts] | None = None,
    is_xywh: bool = False,
) -> tuple[dict[str, Any], list[Change]]:
    """Correct what has one sensible correction and take out what cannot be used.

    Boxes over the border are cut, corners and 0..1 converted, inverted corners put in order, boxes
    turned with the EXIF tag, sizes taken from the files, ids renumbered; images that cannot be
    loaded, that repeat another one's pixels or that are in ``val`` go, with their annotations.
    Categories, class balance, anchors and ``exif_unsure`` are not changed.

    Args:
        content: of the COCO json; not changed.
        json_file, image_root: as in ``from_coco_json``.
        val: the validation set, for leakage.
        facts: see ``find_faults``.
        is_xywh: nothing can speak against boxes being XYWH, as where ``to_coco`` made them.

    Returns:
        The corrected content and the changes in their order.
    """
    content = copy.copy(content)
    for key in ("images", "annotations"):
        content[key] = [dict(x) if isinstance(x, dict) else {} for x in content[key]]
    changes: list[Change] = []
    for _ in range(MAX_ROUNDS):
        table = from_coco_content(content, json_file, image_root)
        faults = find_faults(table, facts)
        if val is not None:
            faults += compare_tables(table, val, facts)
        done = _Round(content, table, faults, facts or {}, is_xywh).correct()
        changes += done
        if not done:
            break
    return content, changes


class _Round:
    """One pass over the faults. Boxes wait until the images are right."""

    def __init__(
        self,
        content: dict[str, Any],
        table: DatasetTable,
        faults: list[Fault],
        facts: Mapping[str, ImageFacts],
        is_xywh: bool,
    ):
        self.content, self.table, self.facts = content, table, facts
        self.faults, self.is_xywh = faults, is_xywh
        self.changes: list[Change] = []
        self.dropped_images: set[int] = set()
        self.dropped_boxes: set[int] = set()

    def correct(self) -> list[Change]:
        self._images()
        if not self.changes:
            self._boxes()
        for key, dropped in (
            ("images", self.dropped_images),
            ("annotations", self.dropped_boxes),
        ):
            if dropped:
                entries = self.content[key]
                self.content[key] = [x for i, x in enumerate(entries) if i not in dropped]
        return self.changes

    def _rows(self, *codes: str, of: str) -> list[tuple[str, int]]:
        return [
            (fault.code, row)
            for fault in self.faults
            if fault.code in codes and fault.of == of
            for row in fault.rows.tolist()
        ]

    def _note(self, code: str, of: str, row: int, change: str) -> None:
        table = self.table
        if of == "box":
            file, annotation_id = table.file_of_box(row), table.annotation_ids[row]
        else:
            file, annotation_id = table.files[row], None
        self.changes.append(Change(code, file or table.source, annotation_id, change))

    # Images

    def _images(self) -> None:
        self._duplicate_image_ids()
        for code, row in self._rows(*_DROP_IMAGES, of="image"):
            self._drop_image(code, row)
        self._duplicate_images()
        for code, row in self._rows("exif_rotation", of="image"):
            self._turn(code, row)
        for code, row in self._rows("wrong_size", "missing_size", of="image"):
            fact = self.facts.get(self.table.files[row])
            if fact is not None and not fact.problem and row not in self.dropped_images:
                self._set_size(row, fact)
                self._note(code, "image", row, "size set to {} x {}".format(*fact.loaded_size))

    def _duplicate_image_ids(self) -> None:
        first_of = repeated(self.table.image_ids)
        for code, row in self._rows("duplicate_image_id", of="image"):
            if self.table.files[first_of[row]] == self.table.files[row]:
                self.dropped_images.add(row)
                self._note(code, "image", row, "second entry removed")
            else:  # nothing tells which image the annotations belong to
                self._drop_image(code, row)
                self._drop_image(code, first_of[row])

    def _duplicate_images(self) -> None:
        first_of = repeated(os.path.normpath(x) if x else None for x in self.table.files)
        for code, row in self._rows("duplicate_image", of="image"):
            if row in self.dropped_images or first_of.get(row) in self.dropped_images:
                continue
            if row not in first_of:
                self._drop_image(code, row)
                continue
            if tuple(self.table.sizes[row]) != tuple(self.table.sizes[first_of[row]]):
                continue  # of two pictures, one of which has the wrong name: which cannot be known
            # One entry for each annotation is a common slip of converters: join them.
            first_id = self.content["images"][first_of[row]]["id"]
            for box in self._boxes_of(row):
                self.content["annotations"][box]["image_id"] = first_id
            self.dropped_images.add(row)
            self._note(code, "image", row, f"entry joined with that of image id {first_id!r}")

    def _drop_image(self, code: str, row: int) -> None:
        if row in self.dropped_images:
            return
        boxes = self._boxes_of(row)
        self.dropped_images.add(row)
        self.dropped_boxes.update(boxes)
        self._note(code, "image", row, f"image removed, with {len(boxes)} annotation(s)")

    def _turn(self, code: str, row: int) -> None:
        if row in self.dropped_images:
            return
        fact = self.facts[self.table.files[row]]
        for box in self._boxes_of(row):
            corners = self.table.xyxy[box][None]
            if np.isfinite(corners).all():
                self._set_box(box, turn_boxes(corners, fact.width, fact.height, fact.orientation))
                for mask in ("segmentation", "keypoints"):
                    self.content["annotations"][box].pop(mask, None)
        self._set_size(row, fact)
        self._note(code, "image", row, f"size and boxes turned by orientation {fact.orientation}")

    def _set_size(self, row: int, fact: ImageFacts) -> None:
        image = self.content["images"][row]
        image["width"], image["height"] = fact.loaded_size

    def _boxes_of(self, row: int) -> list[int]:
        if not hasattr(self, "_order"):
            self._order = np.argsort(self.table.image_of, kind="stable")
            self._sorted = self.table.image_of[self._order]
        first, last = np.searchsorted(self._sorted, [row, row + 1])
        return self._order[first:last].tolist()

    # Boxes

    def _boxes(self) -> None:
        for code, row in self._rows(*_DROP_BOXES, of="box"):
            if row not in self.dropped_boxes:
                self.dropped_boxes.add(row)
                self._note(code, "box", row, "annotation removed")
        for code, row in self._rows("box_as_text", of="box"):
            if row not in self.dropped_boxes:
                before = self.content["annotations"][row]["bbox"]
                numbers = self.table.bboxes[row].tolist()
                self.content["annotations"][row]["bbox"] = numbers
                self._note(code, "box", row, f"bbox {before} -> {numbers}")
        rows = [row for _, row in self._rows("box_normalised", of="box")]
        layout = normalised_layout(self.table, np.array(rows, dtype=np.int64))
        corrections = corrections_of(self.table, "XYWH" if self.is_xywh else layout)
        corners = [row for _, row in self._rows("box_looks_xyxy", of="box")]
        if self.is_xywh:  # so they only stand out
            corrections["box_looks_xyxy"] = corrections["box_over_border"]
        elif not corners_are_certain(self.table, np.array(corners, dtype=np.int64)):
            del corrections["box_looks_xyxy"]
        for code, row in self._rows(*corrections, of="box"):
            corrected = corrections[code](row)
            changed = code != "box_looks_xyxy" or (corrected != self.table.xyxy[row]).any()
            if row not in self.dropped_boxes and np.isfinite(corrected).all() and changed:
                before = self.content["annotations"][row]["bbox"]
                self._set_box(row, corrected[None])
                after = self.content["annotations"][row]["bbox"]
                self._note(code, "box", row, f"bbox {before} -> {after}")
        self._give_new_ids()

    def _set_box(self, row: int, corners: np.ndarray) -> None:
        annotation = self.content["annotations"][row]
        annotation["bbox"] = xywh(corners[0])
        if "segmentation" not in annotation:  # else the area is the mask's
            annotation["area"] = round(annotation["bbox"][2] * annotation["bbox"][3], 3)

    def _give_new_ids(self) -> None:
        used = [x for x in self.table.annotation_ids if type(x) is int]
        new_id = max(used, default=0)
        for code, row in self._rows(*_NEW_IDS, of="box"):
            if row not in self.dropped_boxes:
                new_id = max(new_id, 0) + 1
                self.content["annotations"][row]["id"] = new_id
                self._note(code, "box", row, f"annotation id set to {new_id}")
