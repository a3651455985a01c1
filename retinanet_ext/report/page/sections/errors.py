"""What AP loses to each kind of error, and what usually helps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..charts.bars import Bar, bars
from ..html import fixed, number, section

__all__ = ["MEANING", "errors"]


class Kind(NamedTuple):
    """A kind of error in a few words, in a sentence, and what usually helps."""

    short: str
    meaning: str
    helps: str


MEANING = {
    "Cls": Kind(
        "wrong classes",
        "The box is right, the class is not.",
        "More examples of the classes that are mixed up (see Confusion), or one class for both "
        "where the difference does not matter: <code>DATASETS.MERGE_CLASSES</code>.",
    ),
    "Loc": Kind(
        "loose boxes",
        "The class is right, but the box fits too loosely to count.",
        "Longer training, larger pictures, <code>MODEL.RETINANET.BBOX_REG_LOSS_TYPE giou</code>; "
        "look whether annotated boxes are drawn tightly and all in one way.",
    ),
    "Both": Kind(
        "wrong classes with loose boxes",
        "Class and box are both off.",
        "Usually a model that has not learned enough: train longer, or from pretrained weights.",
    ),
    "Dupe": Kind(
        "objects found twice",
        "A further detection of an object that is found already.",
        "A lower <code>MODEL.RETINANET.NMS_THRESH_TEST</code>; look for boxes that are annotated "
        "twice with <code>retinanet-ext check-data</code>.",
    ),
    "Bkg": Kind(
        "detections on background",
        "A detection where no object is annotated.",
        "Look at the pictures below: where there is an object after all, annotate it; else add "
        "pictures of what is mistaken, without boxes.",
    ),
    "Miss": Kind(
        "missed objects",
        "An object that no detection comes near.",
        "See why objects were missed: anchors that fit, larger pictures for small objects, more "
        "examples.",
    ),
    "FP": Kind(
        "all false detections",
        "All wrong detections together: what AP would be if no false one came before a right one.",
        "",
    ),
    "FN": Kind("all missed objects", "All objects that are not found, for whatever reason.", ""),
}


def errors(content: Mapping[str, Any]) -> str:
    """The section."""
    gains, counts = content["errors"], content["error_counts"]
    iou = content["settings"]["iou"]

    def row(kind: str, color: str) -> Bar:
        meaning = MEANING[kind]
        often = f" {number(counts[kind])} detections, of any score." if counts.get(kind) else ""
        if kind == "Miss":
            often = f" {number(counts[kind])} objects."
        said = f"{meaning.meaning}{often}"
        if meaning.helps and counts.get(kind):
            said += f" <em>What usually helps:</em> {meaning.helps}"
        name = f"<b>{kind}</b> {meaning.short}"
        return Bar(name, gains[kind], f"+{fixed(gains[kind], 2)}", said, color)

    kinds = [row(kind, "c0") for kind in counts]
    both = [row(kind, "c1") for kind in ("FP", "FN")]
    lead = (
        f"By how many points AP at IoU {iou:g} would rise if one kind of error was repaired and "
        "everything else stayed."
    )
    note = (
        '<p class="note">The bars do not add up to 100 &minus; AP: errors hide each other, and a '
        "repair of one may be worth more or less after another. Miss are objects that nothing "
        "comes near; FN are all that are not found, also those that a loose or wrongly named box "
        "covers.</p>"
    )
    return section(
        "errors", "Kinds of errors", bars([*kinds, *both], "points of AP lost"), note, lead=lead
    )
