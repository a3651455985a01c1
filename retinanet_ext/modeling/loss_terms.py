"""What each loss of the detector is called with.

Letters: N images, L levels, A anchors per location, K classes, R anchors over all levels, P
positive anchors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..errors import InputError
from ..protocols import BoxCoder, BoxLoss, ClassificationLoss, FusedClassificationLoss
from ..structures import DenseTargets, HeadOutputs
from .criteria.quality import box_quality
from .criteria.quality_branch import objectness_loss, quality_branch_loss
from .postprocess.gather import gather_deltas, gather_quality, pick_class

DETECTOR_LOSSES = frozenset(["loss_cls", "loss_box_reg", "loss_quality"])


@dataclass(frozen=True)
class Positives:
    """The P positive anchors of a batch.

    Attributes:
        images: (P,) int64 in [0, N).
        indices: (P,) int64 in [0, R), of the anchors.
        deltas: (P, B) for a coder of B numbers per box, predicted, at least float32.
        anchors, gt_boxes: (P, 4), absolute XYXY pixels.
        strides: (P,) of the anchors' levels in pixels, or None where nobody needs them.
    """

    images: Tensor
    indices: Tensor
    deltas: Tensor
    anchors: Tensor
    gt_boxes: Tensor
    strides: Tensor | None = None

    @classmethod
    def of(
        cls,
        anchors: list[Boxes],
        outputs: HeadOutputs,
        targets: DenseTargets,
        per_class: bool,
        box_outputs: int = 4,
        strides: Tensor | None = None,
    ) -> Positives:
        """Pick them out of what the head says of all anchors, or takes those that it gave.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            outputs: of the head, with ``deltas`` or ``positive_deltas``.
            targets: of the N images.
            per_class: whether there is a regressor for each class.
            box_outputs: B, numbers per box.
            strides: (R,) of all anchors, where the box coder needs them.
        """
        # With the default parts, where a training step has to wait for the GPU: how many positives
        # there are. After it, only Detectron2's get_deltas asks, whether they have an area.
        images, indices = targets.pos_mask.nonzero(as_tuple=True)
        classes = targets.labels[images, indices] if per_class else None
        if outputs.positive_deltas is not None:
            deltas = pick_class(outputs.positive_deltas, classes, targets.num_classes, box_outputs)
        elif outputs.deltas is not None:
            deltas = gather_deltas(
                outputs.deltas, images, indices, classes, targets.num_classes, box_outputs
            )
        else:
            raise ValueError("the head gave neither deltas nor positive_deltas")
        all_anchors = Boxes.cat(anchors).tensor
        strides = None if strides is None else strides[indices]
        gt_boxes = targets.boxes[images, indices]
        return cls(images, indices, deltas, all_anchors[indices], gt_boxes, strides)

    @property
    def boxes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of a box loss."""
        return self.deltas, self.anchors, self.gt_boxes

    def __len__(self) -> int:
        return len(self.images)


def classification_term(
    cls_loss: ClassificationLoss,
    cls_score: nn.Conv2d | None,
    anchors: list[Boxes],
    outputs: HeadOutputs,
    targets: DenseTargets,
    positives: Positives,
    box2box_transform: BoxCoder,
) -> Tensor:
    """The sum of the classification loss, from the logits or what ``cls_score`` makes them of.

    Raises:
        ValueError: if the targets have weights that the loss does not use.
    """
    if not getattr(cls_loss, "uses_weights", False):
        targets.require_no_weights(type(cls_loss).__name__)
    if outputs.cls_features is not None and cls_score is not None:
        fused = cast(FusedClassificationLoss, cls_loss)  # or nobody would have asked for features
        return fused.from_features(outputs.cls_features, cls_score, targets)
    if outputs.logits is None:
        raise ValueError("the head gave neither logits nor cls_features")
    wanted: dict[str, Any] = {}
    if getattr(cls_loss, "needs_anchors", False):
        wanted["anchors"] = anchors
    if getattr(cls_loss, "needs_quality", False) and targets.quality is not None:
        wanted["quality"] = targets.quality
    elif getattr(cls_loss, "needs_quality", False):
        quality = torch.zeros_like(targets.boxes[..., 0])
        quality[positives.images, positives.indices] = box_quality(
            *positives.boxes, box2box_transform, positives.strides
        )
        wanted["quality"] = quality
    return cls_loss(outputs.logits, targets, **wanted)


def box_term(box_loss: BoxLoss, targets: DenseTargets, positives: Positives) -> Tensor:
    """The sum of the box loss, with weights and strides (P,) of the positives where it wants them.

    Raises:
        ValueError: if the targets have weights that the loss does not use.
    """
    wanted: dict[str, Any] = {}
    if getattr(box_loss, "needs_strides", False):
        wanted["strides"] = positives.strides
    if targets.weights is None:
        return box_loss(*positives.boxes, **wanted)
    if not getattr(box_loss, "uses_weights", False):
        targets.require_no_weights(type(box_loss).__name__)
    weights = targets.weights[positives.images, positives.indices]
    return box_loss(*positives.boxes, weights=weights, **wanted)


def quality_term(
    kind: str,
    outputs: HeadOutputs,
    targets: DenseTargets,
    positives: Positives,
    box2box_transform: BoxCoder,
) -> Tensor:
    """The sum of the loss of the head's ``quality``: :mod:`.criteria.quality_branch`."""
    if kind == "objectness":
        return objectness_loss(outputs.named["quality"], targets)
    logits = gather_quality(outputs.named["quality"], positives.images, positives.indices)
    return quality_branch_loss(kind, logits, *positives.boxes, box2box_transform, positives.strides)


def named_terms(
    head: nn.Module, outputs: HeadOutputs, targets: DenseTargets, anchors: list[Boxes]
) -> dict[str, Tensor]:
    """The losses that a head has for what it names itself; none without ``named_losses``.

    Raises:
        ValueError: if one has the name of a loss of the detector.
    """
    named_losses: Any = getattr(head, "named_losses", None)
    losses = {} if named_losses is None else named_losses(outputs, targets, anchors)
    if taken := sorted(DETECTOR_LOSSES & losses.keys()):
        raise InputError(
            f"named_losses of the head {type(head).__name__} gives {', '.join(taken)}, which the "
            "detector computes itself; give the loss another name"
        )
    return losses
