"""Why objects are missed: the reasons, in the order in which they are asked, and their counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...structures import DecoderSettings

__all__ = [
    "ABOVE_CAP",
    "BELOW_THRESHOLD",
    "CROWDED",
    "LOOSE",
    "NO_ANCHOR",
    "REASONS",
    "SUPPRESSED",
    "TITLES",
    "TOPK",
    "UNKNOWN",
    "UNSEEN",
    "WRONG_CLASS",
    "MissedObject",
    "Misses",
]

NO_ANCHOR = "no_anchor"
UNSEEN = "unseen"
BELOW_THRESHOLD = "below_threshold"
TOPK = "topk"
LOOSE = "loose"
CROWDED = "crowded"
SUPPRESSED = "suppressed"
ABOVE_CAP = "above_cap"
WRONG_CLASS = "wrong_class"
UNKNOWN = "unknown"

REASONS = (
    NO_ANCHOR,
    UNSEEN,
    BELOW_THRESHOLD,
    TOPK,
    LOOSE,
    CROWDED,
    SUPPRESSED,
    ABOVE_CAP,
    WRONG_CLASS,
    UNKNOWN,
)
"""Keys of ``Misses.reasons``, in the order of the detector's steps, in which they are asked.

Only ``wrong_class`` is asked first: a box that fits has come all the way, and no step is to blame.
"""

# What a chart calls them.
TITLES = {
    NO_ANCHOR: "no anchor fits",
    UNSEEN: "not seen",
    BELOW_THRESHOLD: "score too low",
    TOPK: "lost in top-k",
    LOOSE: "box too loose",
    CROWDED: "crowding",
    SUPPRESSED: "suppressed by NMS",
    ABOVE_CAP: "beyond the limit",
    WRONG_CLASS: "right box, wrong class",
    UNKNOWN: "cannot be told",
}
WITHOUT_MODEL = {
    UNSEEN: "No detection of its class overlaps it.",
    BELOW_THRESHOLD: "A box of its class fits, with a score below the threshold.",
    LOOSE: "The boxes of its class at the object overlap it by less than an IoU of {iou:g}.",
    CROWDED: "The one box of its class that fits it belongs to a neighbour.",
    ABOVE_CAP: "A box fits, beyond the {max_dets} surest of its image and class, which count.",
    WRONG_CLASS: "A box fits it, but is called another class.",
    UNKNOWN: "",
}
WITH_MODEL = {
    NO_ANCHOR: (
        "No anchor reaches an IoU of {settings.matching_iou:g} with it, from which on an anchor "
        "learns an object."
    ),
    UNSEEN: (
        "Every anchor at the object gives its class a score of at most "
        "{settings.score_thresh:g} (MODEL.RETINANET.SCORE_THRESH_TEST)."
    ),
    BELOW_THRESHOLD: "The surest box at the object has a score below the threshold.",
    TOPK: (
        "Its boxes are not among the {settings.topk_candidates} surest of their feature level "
        "(MODEL.RETINANET.TOPK_CANDIDATES_TEST)."
    ),
    LOOSE: "The boxes at the object overlap it by less than an IoU of {iou:g}.",
    CROWDED: "NMS removed its box for that of a neighbour, or the one box left is the neighbour's.",
    SUPPRESSED: "NMS removed its box for a surer one that finds no object itself.",
    ABOVE_CAP: (
        "Its box is beyond the {settings.max_detections} surest of the picture "
        "(TEST.DETECTIONS_PER_IMAGE)."
    ),
    WRONG_CLASS: WITHOUT_MODEL[WRONG_CLASS],
    UNKNOWN: "The picture could not be read, or the model, run again, finds the object.",
}


@dataclass(frozen=True)
class MissedObject:
    """An object without a right detection.

    Attributes:
        image_id: of the annotations.
        box: XYWH in pixels of the picture.
        name: of its class.
        reason: one of REASONS.
        annotation: index into the annotations of the COCO object.
    """

    image_id: Any
    box: tuple[float, float, float, float]
    name: str
    reason: str
    annotation: int


@dataclass(frozen=True)
class Misses:
    """Every missed object with the reason for it.

    Attributes:
        objects: in the order of images and annotations.
        iou: with which a box finds an object.
        max_dets: detections of each image and class that count.
        settings: of the detector that was followed; None where only its detections were known, so
            that its steps cannot be told apart.
        notes: sentences on what the reasons do not say.
    """

    objects: Sequence[MissedObject]
    iou: float
    max_dets: int
    settings: DecoderSettings | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def total(self) -> int:
        """Objects that are missed: the false negatives."""
        return len(self.objects)

    @property
    def reasons(self) -> dict[str, int]:
        """How many objects each of REASONS explains; they add up to ``total``."""
        return _counted(self.objects)

    @property
    def by_class(self) -> dict[str, dict[str, int]]:
        """The same for each class that has misses, by name."""
        of_class: dict[str, list[MissedObject]] = {}
        for missed in self.objects:
            of_class.setdefault(missed.name, []).append(missed)
        return {name: _counted(of_class[name]) for name in sorted(of_class)}

    @property
    def sentences(self) -> dict[str, str]:
        """What each reason that can be told means here, by its key in the order of REASONS."""
        known = WITHOUT_MODEL if self.settings is None else WITH_MODEL
        if self.settings is not None and self.settings.matching_iou is None:
            known = {k: v for k, v in known.items() if k != NO_ANCHOR}
        return {
            key: known[key].format(iou=self.iou, max_dets=self.max_dets, settings=self.settings)
            for key in REASONS
            if known.get(key)
        }

    def to_json(self, most_objects: int | None = None) -> dict[str, Any]:
        """For ``report.json``: counts, words for them, settings and the first ``most_objects``."""
        settings = self.settings
        return {
            "total": self.total,
            "reasons": self.reasons,
            "titles": dict(TITLES),
            "sentences": self.sentences,
            "by_class": self.by_class,
            "with_model": settings is not None,
            "settings": None if settings is None else dict(vars(settings)),
            "notes": list(self.notes),
            "objects": [
                {
                    "image_id": missed.image_id,
                    "bbox": list(missed.box),
                    "class": missed.name,
                    "reason": missed.reason,
                }
                for missed in self.objects[:most_objects]
            ],
        }


def _counted(objects: Sequence[MissedObject]) -> dict[str, int]:
    counts = dict.fromkeys(REASONS, 0)
    for missed in objects:
        counts[missed.reason] += 1
    return counts
