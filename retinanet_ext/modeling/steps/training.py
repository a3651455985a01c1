"""What the detector does in training, from features to losses.

Letters: N images, L levels, A anchors per location, K classes, R anchors over all levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from detectron2.structures import Boxes
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ...protocols import Assigner, BoxCoder, BoxLoss, ClassificationLoss
from ...structures import DenseTargets, HeadOutputs
from ..assigners.ignore_regions import ignore_anchors
from ..coders import num_box_outputs
from ..criteria.normalizer import LossNormalizer
from ..criteria.quality_branch import check_named_quality
from ..detectron2_names import check_targets, refuse_instances
from ..loss_terms import Positives, box_term, classification_term, named_terms, quality_term
from ..postprocess.decode import DenseDecoder
from ..predictions import HeadPredictions, needs_predictions
from ..speedups.opt_in import wanted_parts
from ..speedups.settings import Speedups


class TrainingSteps:
    """Base of the detector: its steps between the features and the losses."""

    takes_partial_outputs = False
    """For a subclass with ``losses`` of its own: True if these know ``cls_features`` and
    ``positive_deltas`` of :class:`HeadOutputs`. Otherwise they get logits and deltas as a whole."""

    anchor_generator: nn.Module
    assigner: Assigner
    cls_loss: ClassificationLoss
    box_loss: BoxLoss
    decoder: DenseDecoder
    loss_normalizer: LossNormalizer
    num_classes: int
    quality_branch: str
    ignore_iof_thresh: float
    fuse_cls_loss: bool
    speedups: Speedups

    if TYPE_CHECKING:  # the detector's own
        head: Any
        device: torch.device

        @property
        def box2box_transform(self) -> BoxCoder: ...

        def _float32(self) -> torch.autocast: ...

        def _strides(self, anchors: list[Boxes]) -> dict[str, Tensor]: ...

    def training_losses(
        self, features: list[Tensor], batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """Losses of N images whose targets are made of their ``instances``.

        The head looks first where the assigner needs to know what it says, else the assigner: the
        head then can leave out what no target asks for.

        Args:
            features: L tensors (N, C, Hi, Wi).
            batched_inputs: N, as of :meth:`label_anchors`.
        """
        anchors = self.anchor_generator(features)
        seen, outputs = [], None
        if needs_predictions(self.assigner):
            with self.speedups.precision(self.device):
                outputs = self._checked(self.head(features))
            seen.append(self._predictions(anchors, outputs))
        with self._float32():
            targets = self.label_anchors(anchors, batched_inputs, *seen)
            check_targets(targets)
        if outputs is None:
            with self.speedups.precision(self.device):
                outputs = self._head_outputs(features, targets)
        with self._float32():
            return self.losses(anchors, outputs, targets)

    def label_anchors(
        self,
        anchors: list[Boxes],
        batched_inputs: list[dict[str, Any]],
        predictions: HeadPredictions | None = None,
    ) -> DenseTargets:
        """What each anchor has to predict, by the assigner and the images' ignored regions.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            batched_inputs: N, with ``instances`` and, where there are some, ``ignore_boxes``.
            predictions: of the head, for an assigner that ``needs_predictions``.

        Raises:
            TypeError: for Instances in their place, which Detectron2's RetinaNet takes.
        """
        refuse_instances(batched_inputs)
        wanted = [] if predictions is None else [predictions]
        instances = [x["instances"].to(self.device) for x in batched_inputs]
        targets = self.assigner(anchors, instances, *wanted)
        ignore_boxes = [x.get("ignore_boxes") for x in batched_inputs]
        return ignore_anchors(targets, anchors, ignore_boxes, self.ignore_iof_thresh)

    def _predictions(self, anchors: list[Boxes], outputs: HeadOutputs) -> HeadPredictions:
        coder, strides = self.box2box_transform, self._strides(anchors)
        return HeadPredictions(outputs, anchors, coder, self.num_classes, **strides)

    def _head_outputs(self, features: list[Tensor], targets: DenseTargets) -> HeadOutputs:
        """The head's outputs for :meth:`losses`, in parts where all that takes part opts in."""
        wanted = set()
        own_losses = getattr(self.losses, "__func__", None) is not TrainingSteps.losses
        if self.takes_partial_outputs or not own_losses:
            sparse = self.speedups.sparse_boxes(features[0])
            wanted = wanted_parts(self.head, self.cls_loss, self.fuse_cls_loss, sparse)
        if wanted:
            return self._checked(self.head.partial_outputs(features, targets, wanted))
        return self._checked(self.head(features))

    def _checked(self, returned: Any) -> HeadOutputs:
        outputs = HeadOutputs.of(returned, type(self.head).__name__)
        check_named_quality(self.quality_branch, outputs, type(self.head).__name__)
        return outputs

    def losses(
        self, anchors: list[Boxes], outputs: HeadOutputs, targets: DenseTargets
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_box_reg``: sums over the batch divided by the loss normalizer.

        A head with a quality branch adds ``loss_quality``, one with ``named_losses`` these.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            outputs: of the head. This method knows the whole and the parts; an overriding one gets
                ``logits`` and ``deltas``, see ``takes_partial_outputs``.
            targets: of the N images.
        """
        per_class = not self.decoder.cls_agnostic_bbox_reg
        transform, cls_score = self.box2box_transform, getattr(self.head, "cls_score", None)
        numbers, strides = num_box_outputs(transform), self._strides(anchors)
        positives = Positives.of(anchors, outputs, targets, per_class, numbers, **strides)
        if has_event_storage():
            num_pos_anchors = len(positives) / targets.num_images
            get_event_storage().put_scalar("num_pos_anchors", num_pos_anchors)
        normalizer = self.loss_normalizer(len(positives), targets.labels.numel())
        losses = {
            "loss_cls": classification_term(
                self.cls_loss, cls_score, anchors, outputs, targets, positives, transform
            ),
            "loss_box_reg": box_term(self.box_loss, targets, positives),
        }
        if self.quality_branch:
            losses["loss_quality"] = quality_term(
                self.quality_branch, outputs, targets, positives, transform
            )
        losses |= named_terms(self.head, outputs, targets, anchors)
        return {name: loss / normalizer for name, loss in losses.items()}
