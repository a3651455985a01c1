"""Which anchors: those of the network, unless they leave out objects."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from ..anchor_tools import TrainingBoxes, coverage, resized_boxes, search_anchors
from ..anchor_tools.levels import anchor_levels
from .choice import Choice
from .facts import DataFacts

__all__ = ["choose_anchors"]

GOOD_COVERAGE = 0.97
MOST_BOXES = 4000  # that the search looks at; more change nothing but its time


def choose_anchors(cfg: CfgNode, data: DataFacts) -> Choice:
    """Keep the anchors that cover 97 % of the objects by half; else search for better ones.

    Args:
        cfg: network and input size are chosen.
        data: with its table.
    """
    assert data.table is not None, "read by data_facts"
    levels, divisor = anchor_levels(cfg)
    boxes = resized_boxes(data.table, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, divisor)
    before = coverage(boxes, levels).recall_at_50
    bases = cfg.MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES
    covered = f"{before:.1%} of the objects have an anchor of IoU 0.5"
    if before >= GOOD_COVERAGE:
        return Choice("anchors", f"from {bases[0]:g} px", covered)
    if importlib.util.find_spec("scipy") is None:
        hint = f"only {covered}; better ones can be searched for after: pip install scipy"
        return Choice("anchors", f"from {bases[0]:g} px", hint)
    iou = float(cfg.MODEL.RETINANET.IOU_THRESHOLDS[-1])
    search = search_anchors(_some(boxes), levels, iou=iou)
    if search.shape is None:
        return Choice(
            "anchors", f"from {bases[0]:g} px", f"{covered}, and none were found to be better"
        )
    strides = [x.stride for x in levels]
    found = search.shape.levels(strides, levels[0].offset)
    after = coverage(boxes, found).recall_at_50
    keys: dict[str, Any] = {
        "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [
            round(float(x), 2) for x in search.shape.octave_base_sizes(strides)
        ],
        "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": search.shape.scales,
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[round(float(x), 3) for x in search.shape.ratios]],
    }
    ratios = ", ".join(f"{x:.2g}" for x in search.shape.ratios)
    return Choice(
        "anchors",
        f"from {search.shape.base:.3g} px, ratios {ratios}",
        f"cover {after:.1%} of the objects in place of {before:.1%}",
        keys,
    )


def _some(boxes: TrainingBoxes) -> TrainingBoxes:
    """At most :data:`MOST_BOXES` of them, evenly chosen."""
    number = len(boxes.boxes)
    if number <= MOST_BOXES:
        return boxes
    rows = np.linspace(0, number - 1, MOST_BOXES).astype(int)
    return dataclasses.replace(
        boxes,
        boxes=boxes.boxes[rows],
        view_of=boxes.view_of[rows],
        classes=boxes.classes[rows],
        rows=boxes.rows[rows],
    )
