"""Names by which code written for Detectron2's RetinaNet knows the parts of this one."""

from __future__ import annotations

import inspect
from typing import Any

from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Instances

from ..protocols import BoxCoder
from ..structures import DenseTargets
from .postprocess.decode import DenseDecoder

_LOSSES = (
    "override losses(self, anchors, outputs, targets), where outputs.logits, outputs.deltas, "
    "targets.labels (N, R) and targets.boxes (N, R, 4) are what Detectron2 passes"
)
_LABELS = (
    "override label_anchors(self, anchors, batched_inputs), which returns DenseTargets, or give "
    "the model an assigner: called with (anchors, gt_instances), it returns DenseTargets too"
)
_DECODER = (
    "override forward_inference(self, images, features, predictions), which returns one Instances "
    "per image, or set model.decoder"
)

_NOT_CALLED = {
    "forward_training": _LOSSES,
    "inference_single_image": _DECODER,
    "_decode_multi_level_predictions": _DECODER,
    "_decode_per_level_predictions": _DECODER,
}
"""Method of Detectron2's RetinaNet -> what to do in place of overriding it."""

_OTHER_ARGUMENTS = {"losses": ("gt_labels", _LOSSES), "label_anchors": ("gt_instances", _LABELS)}
"""Method that both have -> an argument of Detectron2's only, and what to do."""


class Detectron2Names:
    """Base of the detector: settings of its decoder, read and set as those of Detectron2's."""

    decoder: DenseDecoder

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse what Detectron2's RetinaNet would call and this one would not.

        Raises:
            TypeError: if a class, or what it is mixed of, has a method of Detectron2's that is not
                called here, or ``losses`` or ``label_anchors`` with Detectron2's arguments.
        """
        super().__init_subclass__(**kwargs)
        for name, fix in _NOT_CALLED.items():
            own = getattr(cls, name, None) is not getattr(DenseDetector, name, None)
            # A class with a forward of its own may well call them.
            if own and not {"forward", "forward_inference"} & vars(cls).keys():
                raise TypeError(
                    f"{cls.__name__} overrides {name}, which RetinaNetExt does not call; {fix}"
                )
        for name, (argument, fix) in _OTHER_ARGUMENTS.items():
            method = getattr(cls, name, None)
            if method is not None and argument in inspect.signature(method).parameters:
                raise TypeError(
                    f"{cls.__name__} overrides {name} with Detectron2's arguments, which "
                    f"RetinaNetExt does not call it with; {fix}"
                )

    @property
    def test_score_thresh(self) -> float:
        """Scores must be greater, MODEL.RETINANET.SCORE_THRESH_TEST; can be set."""
        return self.decoder.score_thresh

    @test_score_thresh.setter
    def test_score_thresh(self, value: float) -> None:
        self.decoder.score_thresh = value

    @property
    def test_topk_candidates(self) -> int:
        """At most so many per level before NMS, TOPK_CANDIDATES_TEST; can be set."""
        return self.decoder.topk_candidates

    @test_topk_candidates.setter
    def test_topk_candidates(self, value: int) -> None:
        self.decoder.topk_candidates = value

    @property
    def test_nms_thresh(self) -> float:
        """Boxes with a larger IoU are suppressed, NMS_THRESH_TEST; can be set."""
        return self.decoder.nms_thresh

    @test_nms_thresh.setter
    def test_nms_thresh(self, value: float) -> None:
        self.decoder.nms_thresh = value

    @property
    def max_detections_per_image(self) -> int:
        """At most so many per image, TEST.DETECTIONS_PER_IMAGE; can be set."""
        return self.decoder.max_detections

    @max_detections_per_image.setter
    def max_detections_per_image(self, value: int) -> None:
        self.decoder.max_detections = value

    @property
    def box2box_transform(self) -> BoxCoder:
        """Turns deltas and anchors into boxes; an entry of BOX_CODER_REGISTRY."""
        return self.decoder.box2box_transform


def check_targets(targets: object) -> None:
    """Raise TypeError unless the targets are such, not the pair of Detectron2's label_anchors."""
    if not isinstance(targets, DenseTargets):
        raise TypeError(
            f"label_anchors and the assigner return DenseTargets, got {type(targets).__name__}; "
            "return retinanet_ext.structures.DenseTargets(labels (N, R), boxes (N, R, 4), K)"
        )


def refuse_instances(batched_inputs: list[Any]) -> None:
    """Raise TypeError for Instances, which Detectron2's label_anchors takes and ours does not."""
    if any(isinstance(x, Instances) for x in batched_inputs):
        raise TypeError(
            "RetinaNetExt.label_anchors takes the batched inputs, dicts with 'instances', and "
            "returns DenseTargets; for Instances, call model.assigner(anchors, instances)"
        )
