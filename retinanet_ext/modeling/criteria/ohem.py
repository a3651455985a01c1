"""Hard example mining as a registered classification loss, arithmetic from `..losses`.

Letters: N images, A anchors per location, K classes, R anchors over all levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes
from torch import Tensor, nn

from ...errors import InputError
from ...losses.cross_entropy import anchor_cross_entropy
from ...losses.focal import sigmoid_focal_loss, softmax_focal_loss
from ...losses.kernels.dispatch import check_kernel
from ...losses.sampling import check_sampling_arguments, hardest_anchors, hardest_at_ratio
from ...registry import CLS_LOSS_REGISTRY, node_of
from ...structures import IGNORE_LABEL, DenseTargets
from ..classifier import CLASSIFIERS, num_class_outputs


@CLS_LOSS_REGISTRY.register()
class OHEM(nn.Module):
    """Online hard example mining: cross entropy of the hardest anchors of each image (Sec. 5.1).

    An anchor's loss is the sum over its K sigmoids, or that of its softmax, as in SSD, by
    ``classifier``. The others are treated as ignored, so no
    gradient passes through the selection: :mod:`retinanet_ext.losses.sampling`. NMS is over the
    anchors themselves, as OHEM's was over region proposals.

    Attributes:
        needs_anchors: whether ``forward`` must be given the anchors, which is when there is NMS.
    """

    MODES = ("topk", "ratio")
    classifiers = CLASSIFIERS

    config_keys = (
        "OHEM_MODE",
        "OHEM_BATCH",
        "OHEM_NMS_THRESH",
        "OHEM_NEG_POS_RATIO",
        "OHEM_MIN_NEG",
        "LOSS_KERNEL",
    )

    @configurable
    def __init__(
        self,
        *,
        mode: str = "topk",
        batch_size: int = 128,
        nms_thresh: float = 0.5,
        neg_pos_ratio: float = 3.0,
        min_negatives: int = 3,
        kernel: str = "auto",
        classifier: str = "sigmoid",
    ):
        """
        Args:
            mode: "topk" takes the ``batch_size`` hardest anchors, "ratio" positives and
                ``neg_pos_ratio`` times as many negatives ("OHEM 1:3").
            batch_size: anchors per image; 0 with "ratio" takes all positives.
            nms_thresh: see :func:`retinanet_ext.losses.hardest_anchors`; 1 is no suppression.
            neg_pos_ratio, min_negatives: see :func:`retinanet_ext.losses.hardest_at_ratio`.
            kernel: see :func:`retinanet_ext.losses.sigmoid_focal_loss`; not for "softmax".
            classifier: what the logits are, see :mod:`retinanet_ext.modeling.classifier`.
        """
        super().__init__()
        if mode not in self.MODES:
            known = ", ".join(self.MODES)
            raise InputError(f"MODEL.RETINANET.OHEM_MODE must be one of {known}, got '{mode}'")
        if mode == "topk" and batch_size == 0:
            raise InputError("MODEL.RETINANET.OHEM_BATCH is 0; OHEM_MODE topk needs it to be > 0")
        check_sampling_arguments(batch_size, nms_thresh, neg_pos_ratio, min_negatives)
        check_kernel(kernel)
        num_class_outputs(1, classifier)  # refuses others
        self.classifier = classifier
        self.mode = mode
        self.batch_size = batch_size
        self.nms_thresh = nms_thresh
        self.neg_pos_ratio = neg_pos_ratio
        self.min_negatives = min_negatives
        self.kernel = kernel
        self.needs_anchors = nms_thresh < 1

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "mode": node.OHEM_MODE,
            "batch_size": node.OHEM_BATCH,
            "nms_thresh": node.OHEM_NMS_THRESH,
            "neg_pos_ratio": node.OHEM_NEG_POS_RATIO,
            "min_negatives": node.OHEM_MIN_NEG,
            "kernel": node.LOSS_KERNEL,
            "classifier": node.CLASSIFIER,
        }

    def forward(
        self,
        logits: list[Tensor],
        targets: DenseTargets,
        anchors: Sequence[Boxes] | None = None,
    ) -> Tensor:
        """Sum over the anchors that are chosen; logits are the head's, of ``classifier``.

        Args:
            logits, targets: as for every classification loss.
            anchors: of L levels, in pixels of the network's input.

        Raises:
            ValueError: if there is NMS and no anchors are given.
        """
        labels = self.select(logits, targets, anchors)
        if self.classifier == "softmax":
            return softmax_focal_loss(logits, labels, targets.num_classes).sum()
        return sigmoid_focal_loss(
            logits, labels, targets.num_classes, alpha=-1, gamma=0.0, kernel=self.kernel
        )

    @torch.no_grad()
    def select(
        self,
        logits: list[Tensor],
        targets: DenseTargets,
        anchors: Sequence[Boxes] | None = None,
    ) -> Tensor:
        """The labels (N, R), where anchors that are not chosen are -1; arguments of ``forward``."""
        targets.require_one_class("OHEM")
        targets.require_no_weights("OHEM")
        if self.needs_anchors and anchors is None:
            raise InputError(
                f"the loss OHEM needs the anchors, for MODEL.RETINANET.OHEM_NMS_THRESH is "
                f"{self.nms_thresh}; call it with anchors=, or set OHEM_NMS_THRESH to 1.0"
            )
        boxes = None if anchors is None else Boxes.cat(list(anchors)).tensor
        of_anchors = anchor_cross_entropy
        if self.classifier == "softmax":
            of_anchors = softmax_focal_loss
        losses = of_anchors(logits, targets.labels, targets.num_classes)
        masks = []
        for loss, labels in zip(losses, targets.labels, strict=True):
            if self.mode == "topk":
                mask = hardest_anchors(loss, labels, self.batch_size, boxes, self.nms_thresh)
            else:
                mask = hardest_at_ratio(
                    loss,
                    labels,
                    targets.num_classes,
                    self.neg_pos_ratio,
                    self.batch_size,
                    self.min_negatives,
                    boxes,
                    self.nms_thresh,
                )
            masks.append(mask)
        return targets.labels.masked_fill(~torch.stack(masks), IGNORE_LABEL)
