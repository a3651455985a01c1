"""Average recall of proposals: boxes without classes, ranked by objectness."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from tabulate import tabulate

from ..compat import evaluate_box_proposals
from ..console import SHOWN

__all__ = ["LIMITS", "score_proposals"]

logger = logging.getLogger(__name__)

LIMITS = (100, 1000)
"""Proposals per image that count."""

_AREAS = {"all": "", "small": "s", "medium": "m", "large": "l"}


def score_proposals(
    coco_gt: COCO, predictions: Sequence[dict[str, Any]], image_ids: Sequence[Any], name: str
) -> dict[str, float]:
    """``AR@100`` and ``AR@1000`` in percent, also of small, medium and large objects (``ARs@100``).

    The recall is the mean over the IoUs 0.50:0.95, by Detectron2's function. Sizes without objects
    are NaN, as in Detectron2; without any object AR is 0.0, with a warning.

    Args:
        coco_gt: ground truth.
        predictions: dicts of ``image_id`` and ``proposals``, Instances with ``proposal_boxes`` in
            pixels of the image and ``objectness_logits``.
        image_ids: images to evaluate on; those without a prediction have no proposals.
        name: of the dataset, for the log.
    """
    given = {x["image_id"]: x["proposals"] for x in predictions}
    # Detectron2's function forgets the objects of an image without proposals.
    complete = [
        {"image_id": i, "proposals": given[i] if len(given.get(i, ())) else _nowhere()}
        for i in image_ids
    ]
    if not any(not x["iscrowd"] for x in coco_gt.anns.values()):
        logger.warning("Dataset '%s' has no objects to find: AR is set to 0", name)
        return {f"AR{area}@{limit}": 0.0 for limit in LIMITS for area in _AREAS.values()}
    metrics: dict[str, float] = {}
    for limit in LIMITS:
        for area, letter in _AREAS.items():
            found = evaluate_box_proposals(complete, coco_gt, area=area, limit=limit)
            metrics[f"AR{letter}@{limit}"] = 100 * float(found["ar"])
    logger.info(
        "Proposals of '%s' (%d images), average recall in percent:\n\n%s\n",
        name,
        len(complete),
        tabulate([[f"{x:.2f}" for x in metrics.values()]], headers=list(metrics)),
        extra=SHOWN,
    )
    return metrics


def _nowhere() -> Instances:
    """One proposal outside of the image, which finds nothing."""
    boxes = Boxes(torch.tensor([[-2.0, -2.0, -1.0, -1.0]]))
    return Instances((1, 1), proposal_boxes=boxes, objectness_logits=torch.zeros(1))
