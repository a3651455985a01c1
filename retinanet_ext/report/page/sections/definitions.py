"""What the numbers of the page mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..html import esc

__all__ = ["definitions"]

MEANINGS = {
    "Matching": (
        "Detections get objects as in COCO's evaluation: within a class, the surest first, each "
        "object once, at an IoU of {iou:g}, with at most {max_dets} detections of each image and "
        "class. Crowds and ignored objects do not count. Everything on this page but AP and AR "
        "rests on this one assignment, so that its numbers agree."
    ),
    "IoU": "The area that box and object share, over the area that they cover together.",
    "AP, AR": (
        "COCO's: AP is the area under precision over recall at 101 points of recall, the mean over "
        "IoU 0.50, 0.55, ... 0.95 and over the classes; AR is the highest recall, averaged in the "
        "same way. The curves above are drawn through every threshold instead."
    ),
    "Confusion": (
        "COCO's matches within a class come first, so that the diagonal is the number of true "
        "positives. Then each other detection, the surest first, gets the object of another class "
        "that it overlaps most, by at least that IoU, and that nobody has. What gets none is on "
        "background; an object that nobody gets is missed. Matches with crowds are left out."
    ),
    "Best score": (
        "The score of the detection at which F1 is highest, the higher one of equals. A class of "
        "which nothing is found gets that of all classes together."
    ),
    "Kinds of errors": (
        "TIDE (Bolya et al., 2020). Of a wrong detection: Loc if it overlaps an object of its "
        "class by 0.1 to {iou:g}; else Cls if it overlaps one of another class by {iou:g}; else "
        "Dupe if it overlaps a found object of its class; else Bkg if it overlaps nothing by more "
        "than 0.1; else Both. Each kind is repaired by itself. Counts leave out what matches a "
        "crowd."
    ),
    "Calibration": (
        "Ten bins of equal width over all detections that count. ECE is the mean gap between score "
        "and share that is right, weighted by the number of detections; MCE is the largest gap."
    ),
    "Size and shape": (
        "Size is the square root of the area, in octaves; shape is height over width."
    ),
    "Intervals": (
        "Bootstrap: as many images as there are, drawn with replacement, {bootstrap_draws} times; "
        "95 % of the draws lie in the interval. For two runs the same images are drawn of both."
    ),
    "Possibly missing annotations": (
        "Wrong detections with a score above 0.7, and of at least the threshold of their class, "
        "that overlap no object by an IoU of 0.1."
    ),
}


def definitions(content: Mapping[str, Any]) -> str:
    """The section, folded."""
    settings = content["settings"]
    listed = "".join(
        f"<dt>{esc(name)}</dt><dd>{esc(text.format_map(settings))}</dd>"
        for name, text in MEANINGS.items()
    )
    return (
        '<section id="definitions"><details><summary><h2>Definitions</h2></summary>'
        f"<dl>{listed}</dl></details></section>"
    )
