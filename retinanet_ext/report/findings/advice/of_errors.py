"""Rules on the kinds of errors, and on what is detected."""

from __future__ import annotations

from . import limits
from .numbers import Advice, Numbers, of

__all__ = [
    "background",
    "confused_classes",
    "duplicates",
    "large_boxes",
    "loose_boxes",
    "missing_labels",
    "small_objects",
]


def loose_boxes(numbers: Numbers) -> Advice | None:
    """Boxes that overlap their object too little cost much."""
    gain = numbers.gain("Loc")
    if gain < limits.LOC_GAIN:
        return None
    finding = f"Boxes that are too loose cost {gain:.1f} points of AP."
    action = (
        "A longer training, a larger input or a loss of the boxes' overlap makes them tighter; "
        "also look whether the labels are tight."
    )
    known = str(numbers.model("box_loss") or "").lower()
    if known in ("giou", "diou", "ciou", "iou"):
        command = numbers.command(
            "show-data", "--config-file", numbers.config, "--output", "training.jpg"
        )
    else:
        command = numbers.train("giou", "MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "giou")
    return Advice("loose_boxes", finding, action, command, gain / 100)


def confused_classes(numbers: Numbers) -> Advice | None:
    """Boxes are right and classes are not, or one pair of classes is taken for each other."""
    if len(numbers.classes) < 2:
        return None
    gain = numbers.gain("Cls")
    pairs = [
        (actual, detected, often, often / numbers.classes[actual]["n"])
        for actual, detected, often in numbers.confusions
        if actual in numbers.classes
    ]
    worst = [x for x in pairs if x[2] >= limits.FEW and x[3] >= limits.PAIR]
    gaps = [
        (numbers.number("summary", f"{name}any") or 0) - (numbers.number("summary", name) or 0)
        for name in ("AP50", "AP")
        if numbers.number("summary", f"{name}any") is not None
    ]
    gap = max(gaps, default=0.0)
    if gain < limits.CLS_GAIN and gap < limits.NAMING_GAP and not worst:
        return None
    finding = f"Right boxes of the wrong class cost {gain:.1f} points of AP."
    if pairs:
        actual, detected, often, _ = (worst or pairs)[0]
        objects = f"objects of the class '{actual}' are taken for '{detected}'"
        finding += f" {of(often, numbers.classes[actual]['n'], objects)}."
    return Advice(
        "confused_classes",
        finding,
        "Look whether the labels keep these classes apart, by eye and by a rule that can be said; "
        "then train longer, on more pictures of both.",
        numbers.command("show-data", "--config-file", numbers.config, "--output", "training.jpg"),
        max(gain / 100, gap / 100, sum(x[2] for x in worst) / max(numbers.num_objects, 1)),
    )


def missing_labels(numbers: Numbers) -> Advice | None:
    """Sure detections of nothing are so many that labels may lack."""
    count = _possible_labels(numbers)
    if not _many_labels(numbers):
        return None
    return Advice(
        "missing_labels",
        f"{count:,} sure detections are at places where nothing is labelled.",
        "Look at them in the gallery of possibly missing annotations. What is an object there "
        "needs a label, in the training set, too: without it, the model learns not to find such "
        "objects, and AP is too low. The command finds other faults of labels and pictures.",
        numbers.command("check-data", "--config-file", numbers.config, "--images"),
        count / max(numbers.num_objects, 1),
    )


def background(numbers: Numbers) -> Advice | None:
    """Boxes on background cost much, and labels do not seem to lack."""
    gain = numbers.gain("Bkg")
    if gain < limits.BKG_GAIN or _many_labels(numbers):
        return None
    return Advice(
        "background",
        f"Detections on background cost {gain:.1f} points of AP.",
        "Add pictures without objects that look like what is wrongly detected, and train on them, "
        "too; or there are objects without a label.",
        numbers.train("background", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False),
        gain / 100,
    )


def duplicates(numbers: Numbers) -> Advice | None:
    """Objects are detected twice."""
    gain = numbers.gain("Dupe")
    if gain < limits.DUPE_GAIN:
        return None
    thresh = numbers.number("missed", "settings", "nms_thresh") or numbers.model("nms_thresh")
    if not isinstance(thresh, float):
        thresh = 0.5
    lower = round(max(0.1, thresh - 0.1), 2)
    return Advice(
        "duplicates",
        f"Second detections of one object cost {gain:.1f} points of AP.",
        f"Lower the IoU of NMS from {thresh:g}; objects that stand close may be lost then.",
        numbers.evaluate("nms", "MODEL.RETINANET.NMS_THRESH_TEST", lower),
        gain / 100,
    )


def large_boxes(numbers: Numbers) -> Advice | None:
    """Sure boxes of half a picture and more, where no such object is."""
    count = int(numbers.number("large_boxes", "count") or 0)
    images = numbers.number("settings", "images") or 0
    if count < limits.FEW or not images or count / images < limits.LARGE_BOXES:
        return None
    norm = str(numbers.model("norm") or "")
    finding = f"{count:,} wrong detections cover more than half of their picture."
    if norm == "GN":
        return Advice(
            "large_boxes",
            finding,
            "Coarse feature levels see no objects: `anchors show` tells which, and "
            "MODEL.RETINANET.IN_FEATURES leaves them out.",
            numbers.command("anchors", "show", "--config-file", numbers.config),
            count / images / 10,
        )
    return Advice(
        "large_boxes",
        finding,
        "Batch norm in the head has too few values on the coarse levels, and other statistics in "
        "evaluation than in training. Group norm has none; TEST.PRECISE_BN.ENABLED True measures "
        "them again without a training, which helps less.",
        numbers.train("group-norm", "MODEL.RETINANET.NORM", "GN"),
        count / images / 10,
    )


def small_objects(numbers: Numbers) -> Advice | None:
    """Small objects are found much less often than others."""
    grid = numbers.get("recall_grid") or numbers.get("recall_by_shape") or {}
    counts, found, sizes = grid.get("count"), grid.get("found"), grid.get("sizes")
    if not counts or not found or not sizes:
        return None
    small, others = [0, 0], [0, 0]
    for row in range(len(counts)):
        side = small if sizes[row + 1] <= limits.SMALL_SIDE else others
        side[0] += sum(counts[row])
        side[1] += sum(found[row])
    total = small[0] + others[0]
    if small[0] < limits.SMALL_OBJECTS or small[0] < limits.SMALL_SHARE * total or not others[0]:
        return None
    recall, other_recall = small[1] / small[0], others[1] / others[0]
    if other_recall - recall < limits.SMALL_GAP:
        return None
    where = "of the network's input" if grid.get("pixels") == "network" else "of the picture"
    command, side = None, numbers.model("min_size_test")
    longest = numbers.model("max_size_test")
    if side and longest:
        large, long = int(side * 1.5), int(longest * 1.5)
        command = numbers.train(
            "larger",
            *("INPUT.MIN_SIZE_TRAIN", f"({large},)", "INPUT.MAX_SIZE_TRAIN", long),
            *("INPUT.MIN_SIZE_TEST", large, "INPUT.MAX_SIZE_TEST", long),
        )
    return Advice(
        "small_objects",
        f"{recall:.0%} of the objects below {limits.SMALL_SIDE:g} pixels {where} are found, and "
        f"{other_recall:.0%} of the others.",
        "Train with a larger input. Where pictures have more pixels than the network's input, "
        "`predict --tile` cuts them into tiles.",
        command,
        small[0] * (other_recall - recall) / total,
    )


def _possible_labels(numbers: Numbers) -> int:
    total = numbers.number("possible_labels", "count")
    if total is not None:
        return int(total)
    rows = numbers.get("missing_labels") or ()
    return sum(sum(box.get("kind") == "false" for box in row["boxes"]) for row in rows)


def _many_labels(numbers: Numbers) -> bool:
    count = _possible_labels(numbers)
    return count >= limits.FEW and count >= limits.MISSING_LABELS * numbers.num_objects
