"""What the detector as a whole asks of the config, beside what its parts do."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..errors import InputError
from ..registry import ASSIGNER_REGISTRY, CLS_LOSS_REGISTRY, node_of, register_config_check
from .assigners.iou import check_iou_bands
from .criteria.box import build_box_loss
from .criteria.normalizer import build_loss_normalizer
from .postprocess.decode import DenseDecoder


def check_retinanet(cfg: CfgNode, node: CfgNode | None = None) -> None:
    """Raise on settings of MODEL.RETINANET that no single component sees, or that do not fit.

    Args:
        cfg: the config.
        node: the section to read. Default: ``MODEL.RETINANET``.

    Raises:
        InputError: names the key, its value and the fix.
    """
    for build in (build_loss_normalizer, build_box_loss, DenseDecoder.from_cfg):
        try:
            build(cfg, node)
        except ValueError as error:
            raise InputError(str(error)) from error
    node = node_of(cfg, node)
    if node.CANDIDATES_BY == "score" and not node.QUALITY_BRANCH:
        raise InputError(
            "MODEL.RETINANET.CANDIDATES_BY is 'score', but without a QUALITY_BRANCH the score is "
            "that of the class; set QUALITY_BRANCH to 'centerness' or 'iou', or CANDIDATES_BY to "
            "'class'"
        )
    if node.SCORE_RULE != "sqrt_pq" and not node.QUALITY_BRANCH:
        raise InputError(
            f"MODEL.RETINANET.SCORE_RULE is '{node.SCORE_RULE}', but without a QUALITY_BRANCH the "
            "score is that of the class; set QUALITY_BRANCH, or SCORE_RULE to sqrt_pq"
        )
    assigner = ASSIGNER_REGISTRY.get(node.ASSIGNER)
    if not node.CLS_AGNOSTIC_BBOX_REG and getattr(assigner, "needs_predictions", False):
        raise InputError(
            f"MODEL.RETINANET.ASSIGNER is '{node.ASSIGNER}', which goes by the predicted box of an "
            "anchor, but CLS_AGNOSTIC_BBOX_REG is False, which is a box for each class; set it to "
            "True"
        )
    if node.CLASSIFIER != "sigmoid" and getattr(assigner, "needs_predictions", False):
        raise InputError(
            f"MODEL.RETINANET.ASSIGNER is '{node.ASSIGNER}', which goes by the scores of "
            f"independent classes, but CLASSIFIER is {node.CLASSIFIER}; set it to sigmoid"
        )
    cls_loss = CLS_LOSS_REGISTRY.get(node.CLS_LOSS)
    able = _losses_for(node.CLASSIFIER)
    if node.CLS_LOSS not in able:
        raise InputError(
            f"MODEL.RETINANET.CLASSIFIER is {node.CLASSIFIER}, but the loss {node.CLS_LOSS} is of "
            f"another; set CLS_LOSS to one of {', '.join(able)}"
        )
    if node.MULTI_LABEL_IOU_THRESH < 1 and not getattr(cls_loss, "multi_label", False):
        able = sorted(name for name, c in CLS_LOSS_REGISTRY if getattr(c, "multi_label", False))
        raise InputError(
            f"MODEL.RETINANET.MULTI_LABEL_IOU_THRESH is {node.MULTI_LABEL_IOU_THRESH}, but the "
            f"loss {node.CLS_LOSS} knows one class per anchor; set it to 1.0, or CLS_LOSS to one "
            f"of {', '.join(able)}"
        )


def _losses_for(classifier: str) -> list[str]:
    """Names of the losses that go with it; one that says nothing is of sigmoids."""
    return sorted(
        name
        for name, entry in CLS_LOSS_REGISTRY
        if classifier in getattr(entry, "classifiers", ("sigmoid",))
    )


@register_config_check
def check_detectron2_retinanet(cfg: CfgNode) -> None:
    """Raise InputError where Detectron2's own RetinaNet would fail on its bands of IoU."""
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        node = cfg.MODEL.RETINANET
        check_iou_bands(node.IOU_THRESHOLDS, node.IOU_LABELS)
