"""Small typed containers and names that the components share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, int64

RETINANET_ARCHITECTURES = ("RetinaNet", "RetinaNetExt")
"""Values of MODEL.META_ARCHITECTURE that read MODEL.RETINANET: Detectron2's and this package's."""

_DETECTION_SECTIONS = {
    **dict.fromkeys(RETINANET_ARCHITECTURES, "MODEL.RETINANET"),
    "GeneralizedRCNN": "MODEL.ROI_HEADS",
    "PanopticFPN": "MODEL.ROI_HEADS",
}

IGNORE_LABEL = -1
"""Label of an anchor that takes part in no loss."""


@dataclass(frozen=True)
class DenseTargets:
    """What each of the R anchors of N images has to predict.

    Attributes:
        labels: (N, R) int64 in {-1 ignore, 0..K-1 class, K background}. R runs over the levels in
            order and, within a level, over (Hi, Wi, A) with A fastest.
        boxes: (N, R, 4) matched ground-truth boxes, absolute XYXY pixels. Values are undefined
            where the label is not a class.
        num_classes: K.
        extra: (E, 3) int64 rows (image, anchor, class): further classes of positive anchors, each
            row once and none of them the anchor's label, E may be 0; None where there is no such
            thing.
        matched_idxs: (N, R) int64, which of its image's ground-truth boxes each anchor has to
            predict, -1 where the label is not a class; None where the assigner does not say.
        weights: (N, R) float, what each anchor counts in the losses; None: 1. This package's own
            losses know no weights and refuse them, see :meth:`require_no_weights`.
        heat: (N, R, K) float in [0, 1]: 1 at the classes of positive anchors, and how near to an
            object others are; None where there is none. Read by losses with ``uses_heat``.
        quality: (N, R) float in [0, 1], at positives the score that their class has to get, for
            losses that have ``needs_quality``; None: the IoU of the predicted box. Other losses
            learn a score of 1.
    """

    labels: Tensor
    boxes: Tensor
    num_classes: int
    extra: Tensor | None = None
    matched_idxs: Tensor | None = None
    weights: Tensor | None = None
    heat: Tensor | None = None
    quality: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels.dim() != 2:
            raise ValueError(f"labels must be (N, R), got {tuple(self.labels.shape)}")
        if self.boxes.shape != (*self.labels.shape, 4):
            raise ValueError(
                f"boxes must be (N, R, 4) with labels (N, R) = {tuple(self.labels.shape)}, "
                f"got {tuple(self.boxes.shape)}"
            )
        extra = self.extra
        if extra is not None and (extra.dim() != 2 or extra.shape[1] != 3 or extra.dtype != int64):
            raise ValueError(f"extra must be (E, 3) int64, got {tuple(extra.shape)} {extra.dtype}")
        for name in ("matched_idxs", "weights", "quality"):
            value = getattr(self, name)
            if value is not None and value.shape != self.labels.shape:
                raise ValueError(
                    f"{name} must be (N, R) as labels, {tuple(self.labels.shape)}, got "
                    f"{tuple(value.shape)}"
                )
        expected = (*self.labels.shape, self.num_classes)
        if self.heat is not None and self.heat.shape != expected:
            raise ValueError(f"heat must be (N, R, K) = {expected}, got {tuple(self.heat.shape)}")

    def require_one_class(self, loss: str) -> None:
        """Raise ValueError if there is ``extra``: for a loss that knows one class per anchor."""
        if self.extra is not None:
            raise ValueError(
                f"the loss {loss} knows one true class per anchor, but the targets may have more; "
                "set MODEL.RETINANET.MULTI_LABEL_IOU_THRESH to 1.0, or CLS_LOSS to FocalLoss or "
                "another loss of its family"
            )

    def require_no_weights(self, loss: str) -> None:
        """Raise ValueError if there are ``weights``: for a loss in which every anchor counts 1."""
        if self.weights is not None:
            raise ValueError(
                f"the assigner gave weights to the anchors, but the loss {loss} counts each of "
                "them once; write a loss that reads targets.weights and has uses_weights = True, "
                "or leave DenseTargets.weights None"
            )

    @property
    def pos_mask(self) -> Tensor:
        """(N, R) bool: anchors labelled with an object class."""
        return (self.labels >= 0) & (self.labels < self.num_classes)

    @property
    def num_images(self) -> int:
        """N."""
        return self.labels.shape[0]


@dataclass
class HeadOutputs:
    """What a dense head says of N images on L levels.

    ``logits, deltas = outputs`` and ``outputs[0]`` work as with the pair that Detectron2's heads
    return.

    A training step may ask a head for parts (``partial_outputs``, see
    :class:`retinanet_ext.protocols.PartialHead`): then ``cls_features`` may stand in the place of
    ``logits``, and ``positive_deltas`` in that of ``deltas``.

    Attributes:
        logits: L tensors (N, Ai*K, Hi, Wi) for Ai anchors per location and K classes; with
            MODEL.RETINANET.CLASSIFIER softmax (N, Ai*(K+1), Hi, Wi), of each anchor the background
            last.
        deltas: L tensors (N, Ai*4, Hi, Wi); with a regressor for each class (N, Ai*K*4, Hi, Wi), in
            the order (Ai, K, 4).
        named: whatever else the head says, by name; most often L tensors each. The detector hands
            all of it to the losses and the decoder. It reads one name itself, ``quality``: L logits
            (N, Ai, Hi, Wi), see MODEL.RETINANET.QUALITY_BRANCH.
        cls_features: in the place of ``logits``, what the head's ``cls_score`` makes them of: L
            tensors (N, C, Hi, Wi).
        positive_deltas: in the place of ``deltas``, those of the P positive anchors, (P, 4) or
            (P, K*4), in the order of ``targets.pos_mask``.
    """

    logits: list[Tensor] | None = None
    deltas: list[Tensor] | None = None
    named: dict[str, Any] = field(default_factory=dict)
    cls_features: list[Tensor] | None = None
    positive_deltas: Tensor | None = None

    @classmethod
    def of(cls, returned: Any, head: str) -> HeadOutputs:
        """What a head returned: outputs as they are, or the pair of Detectron2's heads.

        Args:
            returned: by ``forward`` of the head.
            head: its name, for the message.

        Raises:
            ValueError: if it is neither: nobody can know what a third output without a name is.
        """
        if isinstance(returned, HeadOutputs):
            return returned
        if isinstance(returned, (tuple, list)) and len(returned) == 2:
            return cls(list(returned[0]), list(returned[1]))
        what = type(returned).__name__
        if isinstance(returned, (tuple, list)):
            what = f"{len(returned)} outputs without names"
        raise ValueError(
            f"the head {head} returned {what}; return logits and deltas, and any further output by "
            "a name of its own: HeadOutputs(logits, deltas, named={'variance': variance}) of "
            "retinanet_ext.structures"
        )

    def __iter__(self) -> Iterator[Any]:
        return iter((self.logits, self.deltas))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return (self.logits, self.deltas)[index]


@dataclass(frozen=True, eq=False)
class DecodedPicture:
    """What a detector computes of one picture on the way to its detections.

    Of R anchors, C classes that were asked for, and M boxes of all classes that NMS leaves, however
    many of these are wanted. Boxes are XYWH float64 in pixels of the picture.

    Attributes:
        anchors: (R, 4), as they lie on the picture; they may stand out of it.
        probs: (C, R), of the classes.
        scores: (C, R), what NMS ranks by: ``probs``, or with the quality of the box in it.
        boxes: (C, R, 4), that the anchors became, cut at the picture's edges.
        is_candidate: (C, R) bool, what NMS gets to see.
        kept: (C, R) int64, row of what NMS leaves, or -1.
        kept_boxes: (M, 4), best first.
        kept_labels: (M,) int64, class indices of the data set that was asked about; -1 for a class
            that it lacks.
        kept_scores: (M,), after NMS.
    """

    anchors: np.ndarray
    probs: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    is_candidate: np.ndarray
    kept: np.ndarray
    kept_boxes: np.ndarray
    kept_labels: np.ndarray
    kept_scores: np.ndarray


@dataclass(frozen=True)
class DecoderSettings:
    """By what a detector chooses its detections.

    Attributes:
        matching_iou: an anchor with this IoU with an object learns it; None where training does not
            go by that.
        score_thresh: MODEL.RETINANET.SCORE_THRESH_TEST.
        topk_candidates: MODEL.RETINANET.TOPK_CANDIDATES_TEST, of each level.
        max_detections: TEST.DETECTIONS_PER_IMAGE.
        nms_thresh: MODEL.RETINANET.NMS_THRESH_TEST.
        nms_kind: MODEL.RETINANET.NMS_KIND.
    """

    matching_iou: float | None
    score_thresh: float
    topk_candidates: int
    max_detections: int
    nms_thresh: float
    nms_kind: str


def architecture_of(cfg: Any) -> Any:
    """What MODEL.META_ARCHITECTURE names, or None where nothing is registered by that name."""
    from detectron2.modeling import META_ARCH_REGISTRY  # the losses work without Detectron2

    name = cfg.MODEL.META_ARCHITECTURE
    return META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None


def detection_section(cfg: Any) -> str | None:
    """The section of the config that holds NUM_CLASSES and SCORE_THRESH_TEST of its model, or None.

    None where there is none, as of ProposalNetwork, or nobody knows it. A meta-architecture of
    one's own says it as its attribute ``detection_section``.
    """
    own = getattr(architecture_of(cfg), "detection_section", None)
    return own or _DETECTION_SECTIONS.get(cfg.MODEL.META_ARCHITECTURE)


def detection_node(cfg: Any) -> Any:
    """What :func:`detection_section` names, or None; of a section of MODEL."""
    section = detection_section(cfg)
    return None if section is None else cfg.MODEL[section.removeprefix("MODEL.")]
