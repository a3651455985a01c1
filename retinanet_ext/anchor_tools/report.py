"""Coverage and matches as one dict for json, and as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from ..boxes import AnchorLevel, best_anchor_iou
from .coverage import IOUS, SIZES, Coverage, size_classes
from .matches import Matches
from .training_boxes import TrainingBoxes

__all__ = ["coverage_report", "format_coverage_report"]

# Boxes are counted by their number of anchors in bands from each of these on.
BANDS = (0, 1, 2, 5, 10, 20)
MAX_CLASSES = 30  # in the text, those with the lowest recall; json has all of them


def coverage_report(
    boxes: TrainingBoxes,
    levels: Sequence[AnchorLevel],
    level_names: Sequence[str],
    matches: Matches,
) -> dict[str, Any]:
    """Everything that ``show`` tells, made of json's types; None where there are no boxes."""
    best = best_anchor_iou(boxes.boxes, boxes.sizes_of_boxes, levels)
    sizes, classes = size_classes(boxes.boxes), boxes.classes
    return {
        "boxes": len(boxes.boxes),
        "views": len(np.unique(boxes.view_of)),
        "all": _as_dict(Coverage.of(best)),
        "by_size": {x: _as_dict(Coverage.of(best[sizes == i])) for i, x in enumerate(SIZES)},
        "by_class": {
            x: _as_dict(Coverage.of(best[classes == i])) for i, x in enumerate(boxes.class_names)
        },
        "matches": {
            "views": matches.num_views,
            "boxes": len(matches.counts),
            "unmatched": matches.unmatched,
            "low_quality_only": matches.low_quality_only,
            "levels": {
                name: {
                    "stride": level.stride,
                    "anchors_per_location": len(level.cells),
                    **_histogram(matches.counts[:, i]),
                }
                for i, (name, level) in enumerate(zip(level_names, levels, strict=True))
            },
            "all": _histogram(matches.counts.sum(axis=1)),
        },
    }


def format_coverage_report(report: dict[str, Any]) -> str:
    """The report as tables."""
    matches = report["matches"]
    classes = sorted(
        (x for x in report["by_class"].items() if x[1]["boxes"]),
        key=lambda x: x[1]["recall"][f"{IOUS[-1]:g}"],
    )
    groups = [("all", report["all"]), *report["by_size"].items(), *classes[:MAX_CLASSES]]
    heads = ["", "boxes", "mean best IoU", *(f"recall at {iou:g}" for iou in IOUS)]
    rows = [[name, *_cells(x)] for name, x in groups]
    lines = [
        f"{report['boxes']} boxes in {report['views']} views. Best-possible recall: fraction of "
        "boxes that some anchor overlaps with at least this IoU. Sizes are those of the network's "
        "input (COCO's borders, 32 and 96 px).",
        tabulate(rows, heads),
    ]
    if len(classes) > MAX_CLASSES:
        lines.append(f"... and {len(classes) - MAX_CLASSES} classes with more recall, see --json")
    heads = ["level", "stride", "anchors per location", "mean", *_band_names()]
    rows = [
        [name, x["stride"], x["anchors_per_location"], f"{x['mean']:.2f}", *x["boxes"].values()]
        for name, x in matches["levels"].items()
    ]
    total = matches["all"]
    rows.append(["all", "", "", f"{total['mean']:.2f}", *total["boxes"].values()])
    lines += [
        "",
        f"Anchors that are positive for an object, over {matches['boxes']} boxes in "
        f"{matches['views']} views, and boxes by their number of such anchors:",
        tabulate(rows, heads, disable_numparse=True, stralign="right"),
        f"No anchor at all: {matches['unmatched']:.2%} of the boxes. Only a low-quality match "
        f"gives them any: {matches['low_quality_only']:.2%}.",
    ]
    return "\n".join(lines)


def _as_dict(x: Coverage) -> dict[str, Any]:
    known = x.boxes > 0
    return {
        "boxes": x.boxes,
        "mean_best_iou": x.mean_best_iou if known else None,
        "recall": {
            f"{iou:g}": share if known else None for iou, share in zip(IOUS, x.recall, strict=True)
        },
    }


def _cells(x: dict[str, Any]) -> list[Any]:
    if not x["boxes"]:
        return [0, *["-"] * (1 + len(IOUS))]
    return [
        x["boxes"],
        f"{x['mean_best_iou']:.3f}",
        *(f"{share:.2%}" for share in x["recall"].values()),
    ]


def _histogram(counts: np.ndarray) -> dict[str, Any]:
    """Mean number of anchors, and the number of boxes in each band."""
    band = np.searchsorted(BANDS, counts, side="right") - 1
    numbers = np.bincount(band, minlength=len(BANDS)).tolist()
    return {
        "mean": float(counts.mean()),
        "boxes": dict(zip(_band_names(), numbers, strict=True)),
    }


def _band_names() -> list[str]:
    ends = [*(x - 1 for x in BANDS[1:]), None]
    pairs = zip(BANDS, ends, strict=True)
    return [f"{a}+" if b is None else f"{a}" if a == b else f"{a}-{b}" for a, b in pairs]
