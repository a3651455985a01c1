"""The keys of a config that DenseRPN reads, and those that others read in its place."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from ...errors import InputError

__all__ = ["check_keys", "node_of_one_class"]

# Keys of MODEL.RETINANET that are about the detections of a RetinaNet, and what stands for them.
_KEYS_OF_DETECTIONS = {
    "NUM_CLASSES": "MODEL.ROI_HEADS.NUM_CLASSES",
    "IN_FEATURES": "MODEL.RPN.IN_FEATURES",
    "SCORE_THRESH_TEST": "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "TOPK_CANDIDATES_TEST": "MODEL.RPN.PRE_NMS_TOPK_TEST",
    "NMS_THRESH_TEST": "MODEL.RPN.NMS_THRESH",
}
# Keys of MODEL.RPN that are about Detectron2's own RPN, and what stands for them.
_KEYS_OF_RPN = {
    "HEAD_NAME": "MODEL.RETINANET.HEAD",
    "IOU_THRESHOLDS": "MODEL.RETINANET.IOU_THRESHOLDS",
    "IOU_LABELS": "MODEL.RETINANET.IOU_LABELS",
    "BATCH_SIZE_PER_IMAGE": "MODEL.RETINANET.CLS_LOSS",
    "POSITIVE_FRACTION": "MODEL.RETINANET.CLS_LOSS",
    "BBOX_REG_LOSS_TYPE": "MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
    "BBOX_REG_WEIGHTS": "MODEL.RETINANET.BBOX_REG_WEIGHTS",
    "SMOOTH_L1_BETA": "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA",
    "BOUNDARY_THRESH": "MODEL.RETINANET.ASSIGNER",
    "CONV_DIMS": "MODEL.RETINANET.NUM_CONVS",
}


def check_keys(cfg: CfgNode) -> None:
    """Raise InputError for a changed key of MODEL.RETINANET or MODEL.RPN that nobody reads."""
    known = get_detectron2_cfg().MODEL
    for section, keys in (("RETINANET", _KEYS_OF_DETECTIONS), ("RPN", _KEYS_OF_RPN)):
        for key, meant in keys.items():
            value, default = cfg.MODEL[section][key], known[section][key]
            if value != default:
                raise InputError(
                    f"MODEL.{section}.{key} is {value!r}, but the proposal generator DenseRPN "
                    f"does not read it; set {meant} instead"
                )
    if cfg.MODEL.RETINANET.CLASSIFIER != "sigmoid":
        raise InputError(
            f"MODEL.RETINANET.CLASSIFIER is {cfg.MODEL.RETINANET.CLASSIFIER}, but the "
            "proposals of DenseRPN have one class; set it to sigmoid"
        )
    if not cfg.MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG:
        raise InputError(
            "MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG is False, but the proposals of DenseRPN "
            "have one class; set it to True"
        )


def node_of_one_class(cfg: CfgNode) -> CfgNode:
    """MODEL.RETINANET for one class, on the levels of MODEL.RPN."""
    node = cfg.MODEL.RETINANET.clone()
    node.defrost()
    node.NUM_CLASSES, node.IN_FEATURES = 1, list(cfg.MODEL.RPN.IN_FEATURES)
    return node
