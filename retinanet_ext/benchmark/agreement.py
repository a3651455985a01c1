"""Whether both sides give the same numbers: differences measured, limits enforced.

Each function returns how far the two sides are apart, by what was compared, and raises
:class:`Disagreement` where that is more than rounding explains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from detectron2.structures import Instances
from torch import Tensor

from ..structures import DenseTargets
from .results import Disagreement

__all__ = [
    "compare_detections",
    "compare_gradients",
    "compare_labels",
    "compare_losses",
    "compare_metrics",
    "compare_parameter_gradients",
]

LOSS_LIMIT = 1e-5  # relative
GRADIENT_LIMIT = 1e-4  # of the largest entry of the same tensor
ALL_PARAMETERS_LIMIT = 1e-3  # length of the difference, relative to that of the gradient
ONE_PARAMETER_LIMIT = 0.1
SCORE_LIMIT = 1e-4
BOX_LIMIT = 1e-2  # pixels
AP_LIMIT = 1e-6  # percent


def compare_losses(
    task: str, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]
) -> dict[str, float]:
    """Largest relative difference of the named losses."""
    if theirs.keys() != ours.keys():
        raise Disagreement(f"{task}: the losses {sorted(theirs)} and {sorted(ours)} differ in name")
    worst = 0.0
    for name in theirs:
        expected, got = theirs[name].item(), ours[name].item()
        difference = abs(got - expected) / max(abs(expected), 1e-30)
        _require(task, name, difference, LOSS_LIMIT, f"{expected:.9g} against {got:.9g}")
        worst = max(worst, difference)
    return {"losses, relative": worst}


def compare_metrics(
    task: str, theirs: Mapping[str, float], ours: Mapping[str, float]
) -> dict[str, float]:
    """Largest difference of the metrics that ``theirs`` names; NaN equals NaN."""
    worst = 0.0
    for name, expected in theirs.items():
        got = ours.get(name, math.inf)
        if math.isnan(expected) and math.isnan(got):
            continue
        difference = abs(got - expected)
        _require(task, name, difference, AP_LIMIT, f"{expected:.9g} against {got:.9g}")
        worst = max(worst, difference)
    return {"metrics, percent": worst}


def compare_gradients(
    task: str, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]
) -> dict[str, float]:
    """Largest difference of the named gradients, relative to the largest entry of each."""
    _require_same_names(task, theirs, ours)
    worst = 0.0
    for name, expected in theirs.items():
        largest = expected.abs().max().item()
        difference = (ours[name] - expected).abs().max().item() / max(largest, 1e-30)
        _require(task, f"gradient of {name}", difference, GRADIENT_LIMIT, f"of at most {largest:g}")
        worst = max(worst, difference)
    return {"gradients, of the largest entry": worst}


def compare_parameter_gradients(
    task: str,
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    rounded: Callable[[], Mapping[str, Tensor]] | None = None,
) -> dict[str, float]:
    """Length of the gradients' difference: of all parameters together, and of the worst one.

    ReLU and the L1 loss have a kink. An activation that is 0 within rounding may pass a gradient on
    one side and none on the other, which shows in the few parameters that it reaches, and in all of
    them where batch norm sees few pixels. (Detectron2's own gradients in float32 and float64 differ
    by 0.05 in a layer of ResNet-50 on small images.)

    Args:
        task: for the message.
        theirs, ours: parameter -> gradient.
        rounded: Detectron2's gradients with weights that are equal within rounding, called where
            the limit for all parameters is exceeded: twice what they differ by is allowed.
    """
    _require_same_names(task, theirs, ours)
    total, each = _relative_lengths(theirs, ours)
    found = {"gradient, relative length": total, "of the worst parameter": max(each.values())}
    for name, relative in each.items():
        _require(task, f"gradient of {name}", relative, ONE_PARAMETER_LIMIT, "relative length")
    limit, explained = ALL_PARAMETERS_LIMIT, "relative length"
    if total > limit and rounded is not None:
        by_rounding, _ = _relative_lengths(theirs, rounded())
        limit = max(limit, 2 * by_rounding)
        explained += f"; rounding its weights changes Detectron2's by {by_rounding:.3g}"
        found["of Detectron2's with rounded weights"] = by_rounding
    _require(task, "gradient of all parameters", total, limit, explained)
    return found


def _relative_lengths(
    expected: Mapping[str, Tensor], got: Mapping[str, Tensor]
) -> tuple[float, dict[str, float]]:
    """Length of the difference over that of ``expected``: of all together, and of each."""
    lengths = {name: x.double().norm().item() for name, x in expected.items()}
    differences = {n: (got[n].double() - x.double()).norm().item() for n, x in expected.items()}
    total = math.hypot(*differences.values()) / max(math.hypot(*lengths.values()), 1e-30)
    return total, {name: differences[name] / max(lengths[name], 1e-30) for name in expected}


def _require_same_names(
    task: str, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]
) -> None:
    if theirs.keys() != ours.keys():
        only = sorted(theirs.keys() ^ ours.keys())
        raise Disagreement(f"{task}: only one side has a gradient for {', '.join(only[:5])}")


def compare_labels(
    task: str, theirs: tuple[list[Tensor], list[Tensor]], ours: DenseTargets
) -> dict[str, float]:
    """Number of anchors with another label, or a positive with another box: must be none."""
    labels, boxes = torch.stack(theirs[0]), torch.stack(theirs[1])
    differ = labels != ours.labels
    differ |= ours.pos_mask & (boxes != ours.boxes).any(dim=-1)
    count = int(differ.sum())
    _require(task, "labels", count, 0, f"{count} of {labels.numel()} anchors differ")
    return {"labels that differ": float(count)}


def compare_detections(
    task: str,
    theirs: list[Instances],
    ours: list[Instances],
    score_thresh: float,
    limit: int | None = None,
) -> dict[str, float]:
    """Largest difference in score and box between detections of the same class.

    Detections are matched whatever their order, since rounding may swap equal scores. For the same
    reason one may be without a partner if its score is at the threshold, or the lowest of as many
    on both sides. At the limit on detections, one side may have one less: of two equal scores, the
    one that it kept was a box without area, which is dropped in the end.

    Args:
        task: for the message.
        theirs, ours: of the same images.
        score_thresh: MODEL.RETINANET.SCORE_THRESH_TEST.
        limit: TEST.DETECTIONS_PER_IMAGE, where detections are those of a whole model.
    """
    worst_score, worst_box = 0.0, 0.0
    for image, (expected, got) in enumerate(zip(theirs, ours, strict=True)):
        counts = f"{task}, detections of image {image}: {len(expected)} against {len(got)}"
        if len(expected) and len(got):
            score, box = _compare_image(counts, expected, got, score_thresh, limit)
            worst_score, worst_box = max(worst_score, score), max(worst_box, box)
        elif len(expected) or len(got):
            raise Disagreement(counts)
    return {"scores": worst_score, "boxes, pixels": worst_box}


def _compare_image(
    counts: str, expected: Instances, got: Instances, score_thresh: float, limit: int | None
) -> tuple[float, float]:
    score = (expected.scores[:, None] - got.scores).abs()
    box = (expected.pred_boxes.tensor[:, None] - got.pred_boxes.tensor).abs().amax(dim=2)
    same_class = expected.pred_classes[:, None] == got.pred_classes
    fits = same_class & (score <= SCORE_LIMIT) & (box <= BOX_LIMIT)
    lowest = score_thresh
    sizes = sorted((len(expected), len(got)))
    if sizes[0] == sizes[1] or sizes == [sizes[1] - 1, limit]:
        lowest = max(lowest, expected.scores.min().item(), got.scores.min().item())
    for side, alone in ((expected, ~fits.any(dim=1)), (got, ~fits.any(dim=0))):
        alone &= side.scores > lowest + SCORE_LIMIT
        if bool(alone.any()):
            raise Disagreement(
                f"{counts}, and {int(alone.sum())} of one side have no partner of the same class "
                f"within {SCORE_LIMIT:g} in score and {BOX_LIMIT:g} pixels, for example "
                f"{_describe(side, int(alone.nonzero()[0]))}"
            )
    return _largest_of_nearest(score, fits), _largest_of_nearest(box, fits)


def _largest_of_nearest(differences: Tensor, fits: Tensor) -> float:
    """The largest distance to a partner, of those of ``theirs`` that have one."""
    nearest = differences.where(fits, torch.inf).amin(dim=1)
    nearest = nearest[nearest.isfinite()]
    return nearest.max().item() if len(nearest) else 0.0


def _describe(detections: Instances, index: int) -> str:
    box = [round(x, 2) for x in detections.pred_boxes.tensor[index].tolist()]
    score, label = detections.scores[index].item(), int(detections.pred_classes[index])
    return f"class {label}, score {score:.6f}, box {box}"


def _require(task: str, what: str, difference: float, limit: float, values: str) -> None:
    if not difference <= limit:  # NaN fails too
        raise Disagreement(
            f"{task}: {what} differs by {difference:.3g}, allowed is {limit:g} ({values})"
        )
