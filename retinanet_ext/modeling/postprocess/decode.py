"""From per-level logits and deltas to detections (Sec. 4.1, "Inference").

Letters: N images, L levels, A anchors per location (levels may differ in it), K classes, R anchors
over all levels, Hi x Wi locations of level i, T candidates, P pairs of an image and an anchor.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...errors import InputError
from ...protocols import BoxCoder
from ...registry import BOX_CODER_REGISTRY, node_of
from ...structures import HeadOutputs
from ..classifier import class_logits, num_class_outputs
from ..coders import decode_boxes, num_box_outputs
from .candidates import (
    SCORE_RULES,
    Candidates,
    joint_logits,
    joint_scores,
    select_candidates,
)
from .gather import gather_deltas, gather_quality
from .suppress import Suppression, check_nms_arguments


class DenseDecoder(Suppression):
    """Threshold, top candidates per level, decode only those, then NMS; by ``nms_kind``:

    - ``per_class``: a box is dropped for a better one of its class, as in the paper.
    - ``class_agnostic``: for a better one of any class, so one box per place.
    - ``soft``: a box's score is lowered for each better one of its class (:func:`soft_nms`), and
      the box is dropped if the score is no longer above ``score_thresh``.

    Where the head predicts the quality of its boxes, a detection's score is by ``score_rule``
    sqrt(p * q), p * q or p: p of its class, q of its box. ``score_thresh`` and ``topk_candidates``
    look at p, so that the choice of candidates costs nothing more, or with ``candidates_by``
    "score" at the score, as FCOS does; NMS and ``max_detections`` rank by the score.
    """

    def __init__(
        self,
        *,
        box2box_transform: BoxCoder,
        num_classes: int,
        score_thresh: float = 0.05,
        topk_candidates: int = 1000,
        nms_thresh: float = 0.5,
        max_detections: int = 100,
        nms_kind: str = "per_class",
        soft_nms_method: str = "gaussian",
        soft_nms_sigma: float = 0.5,
        cls_agnostic_bbox_reg: bool = True,
        candidates_by: str = "class",
        clip_before_nms: bool = False,
        classifier: str = "sigmoid",
        score_rule: str = "sqrt_pq",
    ):
        """
        Args:
            box2box_transform: turns deltas and anchors into boxes; an entry of
                BOX_CODER_REGISTRY.
            num_classes: K.
            score_thresh: scores must be greater, in [0, 1].
            topk_candidates: at most so many per level before NMS.
            nms_thresh: boxes with a larger IoU are suppressed, in [0, 1]; with ``soft``, only
                "linear" reads it, and lowers scores from this IoU on.
            max_detections: at most so many per image.
            nms_kind: one of NMS_KINDS.
            clip_before_nms: cut boxes to the image before NMS, which then sees smaller ones.
            soft_nms_method, soft_nms_sigma: ``method`` and ``sigma`` of :func:`soft_nms`.
            cls_agnostic_bbox_reg: one box for all classes of an anchor; False: one for each.
            candidates_by: "class" or "score", see the class.
            classifier: what the logits are, one of CLASSIFIERS.
            score_rule: one of SCORE_RULES, see the class.

        Raises:
            ValueError: names the config key of a setting that is out of range.
        """
        for key, value, low, high in (
            ("MODEL.RETINANET.SCORE_THRESH_TEST", score_thresh, 0, 1),
            ("MODEL.RETINANET.NMS_THRESH_TEST", nms_thresh, 0, 1),
            ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", topk_candidates, 1, math.inf),
            ("TEST.DETECTIONS_PER_IMAGE", max_detections, 1, math.inf),
        ):
            if not low <= value <= high:
                raise InputError(f"{key} must be in [{low}, {high}], got {value}")
        check_nms_arguments(nms_kind, soft_nms_method, soft_nms_sigma)
        num_class_outputs(num_classes, classifier)  # refuses others
        if score_rule not in SCORE_RULES:
            raise InputError(
                f"MODEL.RETINANET.SCORE_RULE is '{score_rule}'; set it to one of "
                f"{', '.join(SCORE_RULES)}"
            )
        self.box2box_transform = box2box_transform
        self.num_classes = num_classes
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections
        self.nms_kind = nms_kind
        self.soft_nms_method = soft_nms_method
        self.soft_nms_sigma = soft_nms_sigma
        self.cls_agnostic_bbox_reg = cls_agnostic_bbox_reg
        self.candidates_by = candidates_by
        self.clip_before_nms = clip_before_nms
        self.classifier = classifier
        self.score_rule = score_rule

    @classmethod
    def from_cfg(cls, cfg: CfgNode, node: CfgNode | None = None) -> DenseDecoder:
        """Build it from the config.

        Args:
            cfg: the config; of it, ``TEST.DETECTIONS_PER_IMAGE`` is read.
            node: the section that all else is read from. Default: ``MODEL.RETINANET``.
        """
        section, node = node, node_of(cfg, node)
        return cls(
            box2box_transform=BOX_CODER_REGISTRY.build(cfg, node=section),
            num_classes=node.NUM_CLASSES,
            score_thresh=node.SCORE_THRESH_TEST,
            topk_candidates=node.TOPK_CANDIDATES_TEST,
            nms_thresh=node.NMS_THRESH_TEST,
            max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            nms_kind=node.NMS_KIND,
            soft_nms_method=node.SOFT_NMS_METHOD,
            soft_nms_sigma=node.SOFT_NMS_SIGMA,
            cls_agnostic_bbox_reg=node.CLS_AGNOSTIC_BBOX_REG,
            candidates_by=node.CANDIDATES_BY,
            clip_before_nms=node.CLIP_BEFORE_NMS,
            classifier=node.CLASSIFIER,
            score_rule=node.SCORE_RULE,
        )

    @torch.no_grad()
    def __call__(
        self,
        anchors: list[Boxes],
        outputs: HeadOutputs,
        image_sizes: list[tuple[int, int]],
        strides: Tensor | None = None,
    ) -> list[Instances]:
        """Detections of N images, best first.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            outputs: whole logits and deltas of the head. Of those with a name of their own only
                ``quality`` is read.
            image_sizes: (height, width) of each image in pixels, without padding.
            strides: (R,) of the anchors in pixels, for a box coder that needs them.

        Returns:
            N Instances with ``pred_boxes`` (absolute XYXY pixels, clipped only where
            ``clip_before_nms``), ``scores`` and ``pred_classes``. Boxes and scores that are not
            finite are left out.
        """
        return [self.suppress(x) for x in self.candidates(anchors, outputs, image_sizes, strides)]

    @torch.no_grad()
    def candidates(
        self,
        anchors: list[Boxes],
        outputs: HeadOutputs,
        image_sizes: list[tuple[int, int]],
        strides: Tensor | None = None,
    ) -> list[Instances]:
        """What the detections are chosen from, before NMS; arguments and fields as of a call.

        Returns:
            N Instances, sorted by level, and within a level best class score first.
        """
        if not image_sizes:
            return []
        found, boxes = self.choose(anchors, outputs, strides)
        scores = found.scores
        finite = boxes.isfinite().all(dim=1) & scores.isfinite()
        if torch.jit.is_tracing():  # a trace would keep the numbers of its example
            of_images = [finite & (found.image_indices == i) for i in range(len(image_sizes))]
            return [
                Instances(
                    size,
                    pred_boxes=Boxes(self.clipped(boxes[mine], size)),
                    scores=scores[mine],
                    pred_classes=found.classes[mine],
                )
                for size, mine in zip(image_sizes, of_images, strict=True)
            ]
        kept = finite.nonzero().flatten()
        images = torch.arange(len(image_sizes), device=boxes.device)
        starts = torch.searchsorted(found.image_indices[kept], images).tolist()
        sizes = [stop - start for start, stop in pairwise([*starts, len(kept)])]
        fields = (x[kept].split(sizes) for x in (boxes, scores, found.classes))
        per_image = zip(image_sizes, *fields, strict=True)
        return [
            Instances(size, pred_boxes=Boxes(self.clipped(b, size)), scores=s, pred_classes=c)
            for size, b, s, c in per_image
        ]

    def clipped(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(T, 4) boxes, cut to an image of (height, width) if that is wanted."""
        if not self.clip_before_nms:
            return boxes
        height, width = size  # tensors in a trace
        sides = zip(boxes.unbind(1), (width, height, width, height), strict=True)
        return torch.stack([x.clamp(min=0).clamp(max=limit) for x, limit in sides], dim=1)

    @torch.no_grad()
    def choose(
        self, anchors: list[Boxes], outputs: HeadOutputs, strides: Tensor | None = None
    ) -> tuple[Candidates, Tensor]:
        """The candidates of all images in one table, with the scores that NMS ranks by.

        Arguments as of a call.

        Returns:
            The T candidates and their boxes (T, 4); boxes and scores may be not finite.
        """
        logits, deltas, quality = outputs.logits, outputs.deltas, outputs.named.get("quality")
        if logits is None or deltas is None:
            raise ValueError("detections need the head's logits and deltas as a whole")
        logits = class_logits(logits, self.num_classes, self.classifier)
        if quality is not None and self.candidates_by == "score":
            logits, quality = joint_logits(logits, quality, self.score_rule), None
        found = select_candidates(logits, self.num_classes, self.score_thresh, self.topk_candidates)
        images, rows = found.image_indices, found.anchor_indices
        classes = None if self.cls_agnostic_bbox_reg else found.classes
        coder = self.box2box_transform
        boxes = decode_boxes(
            coder,
            gather_deltas(deltas, images, rows, classes, self.num_classes, num_box_outputs(coder)),
            Boxes.cat(anchors).tensor.index_select(0, rows),
            None if strides is None else strides.index_select(0, rows),
        )
        if quality is not None:
            quality_probs = gather_quality(quality, images, rows).sigmoid()
            scores = joint_scores(found.scores, quality_probs, self.score_rule)
            found = found._replace(scores=scores)
        return found, boxes
