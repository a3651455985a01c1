"""Rules on why objects are missed."""

from __future__ import annotations

from . import limits
from .numbers import Advice, Numbers

__all__ = [
    "above_cap",
    "crowding",
    "missing_anchors",
    "suppressed",
    "topk",
    "unseen",
    "unsure",
]


def missing_anchors(numbers: Numbers) -> Advice | None:
    """More than a tenth of the misses are objects that no anchor fits."""
    number, share, weight = numbers.missed("no_anchor")
    if share <= limits.WITHOUT_ANCHOR or number < limits.FEW:
        return None
    iou = numbers.number("missed", "settings", "matching_iou") or 0.5
    return Advice(
        "missing_anchors",
        f"{numbers.of_missed(number)} have no anchor with an IoU of {iou:g} or more.",
        "The command looks for anchors that fit the training set better and writes a config to "
        "train with; or it says that there are none, and which input size would do.",
        numbers.command(
            "anchors",
            "optimise",
            "--config-file",
            numbers.config,
            "--output",
            f"{numbers.run}-anchors.yaml",
        ),
        weight,
    )


def unseen(numbers: Numbers) -> Advice | None:
    """Many misses leave no trace in the scores."""
    number, share, weight = numbers.missed("unseen")
    if share <= limits.UNSEEN or number < limits.FEW:
        return None
    return Advice(
        "unseen",
        f"{numbers.of_missed(number)} are not seen at all: "
        "nothing at them has a score worth looking at.",
        "Look whether the training set has such objects and labels them as the validation set "
        "does; more pictures of them, or a longer training, are needed then.",
        numbers.command("show-data", "--config-file", numbers.config, "--output", "training.jpg"),
        weight,
    )


def unsure(numbers: Numbers) -> Advice | None:
    """Most misses, and many of the objects, have a score below the threshold."""
    number, share, weight = numbers.missed("below_threshold")
    if share <= limits.UNSURE or weight <= limits.UNSURE_OBJECTS or number < limits.FEW:
        return None
    return Advice(
        "unsure",
        f"{numbers.of_missed(number)} have a score below the threshold.",
        "A longer training or more pictures make the model surer. A lower threshold finds more of "
        "them now, with more false detections.",
        numbers.command(
            "predict",
            numbers.run,
            "PICTURES",
            "--output",
            "found",
            "--draw",
            "--score-thresh",
            0.2,
        ),
        weight,
    )


def topk(numbers: Numbers) -> Advice | None:
    """Right boxes are lost in the choice of candidates."""
    number, share, weight = numbers.missed("topk")
    now = numbers.number("missed", "settings", "topk_candidates")
    if share <= limits.LOST_IN_TOPK or number < limits.FEW or now is None:
        return None
    return Advice(
        "topk",
        f"{numbers.of_missed(number)} have a right box that is "
        f"not among the {now:,.0f} surest of its feature level.",
        "Let more candidates pass; NMS takes longer then.",
        numbers.evaluate("topk", "MODEL.RETINANET.TOPK_CANDIDATES_TEST", int(now) * 4),
        weight,
    )


def above_cap(numbers: Numbers) -> Advice | None:
    """Right boxes are beyond the number of detections of a picture."""
    number, share, weight = numbers.missed("above_cap")
    now = numbers.number("missed", "settings", "max_detections") or numbers.number(
        "settings", "max_dets"
    )
    if share <= limits.ABOVE_CAP or number < limits.FEW or now is None:
        return None
    return Advice(
        "above_cap",
        f"{numbers.of_missed(number)} have a right box beyond "
        f"the {now:,.0f} surest detections of their picture.",
        "Let a picture have more detections.",
        numbers.evaluate("detections", "TEST.DETECTIONS_PER_IMAGE", int(now) * 3),
        weight,
    )


def crowding(numbers: Numbers) -> Advice | None:
    """NMS takes objects that stand close to another one of their class."""
    number, share, weight = numbers.missed("crowded")
    if share <= limits.CROWDED or number < limits.FEW:
        return None
    finding = (
        f"{numbers.of_missed(number)} are lost to a neighbour of "
        "their class, whose box overlaps theirs."
    )
    kind = numbers.get("missed", "settings", "nms_kind")
    thresh = numbers.number("missed", "settings", "nms_thresh")
    if kind == "soft" or kind is None or thresh is None:
        return Advice(
            "crowding",
            finding,
            "A higher MODEL.RETINANET.NMS_THRESH_TEST, or soft-NMS (MODEL.RETINANET.NMS_KIND "
            "soft), keeps boxes that overlap more; there may be more duplicates.",
            None,
            weight,
        )
    return Advice(
        "crowding",
        finding,
        "Soft-NMS lowers the scores of overlapping boxes and removes none; or raise "
        f"MODEL.RETINANET.NMS_THRESH_TEST above {thresh:g}. There may be more duplicates.",
        numbers.evaluate("soft-nms", "MODEL.RETINANET.NMS_KIND", "soft"),
        weight,
    )


def suppressed(numbers: Numbers) -> Advice | None:
    """The surest boxes are not the ones that fit."""
    number, share, weight = numbers.missed("suppressed")
    if share <= limits.SUPPRESSED or number < limits.FEW:
        return None
    finding = (
        f"{numbers.of_missed(number)} have a box that fits, which "
        "NMS removes for a surer one that does not."
    )
    action = "Let the model learn how well its boxes fit, so that the score says so."
    if numbers.model("quality_branch"):
        return Advice("suppressed", finding, "A longer training makes boxes fit.", None, weight)
    command = numbers.train("quality", "MODEL.RETINANET.QUALITY_BRANCH", "iou")
    return Advice("suppressed", finding, action, command, weight)
