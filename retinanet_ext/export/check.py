"""What cannot be exported, found before anything is computed."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformLinear

from ..errors import InputError
from ..modeling import RetinaNetExt
from ..modeling.postprocess.decode import DenseDecoder
from ..structures import architecture_of
from .graph.nms import MOST_GROUPS
from .options import ExportOptions

__all__ = ["check_config", "check_model"]

CHANNELS = {"BGR": 3, "RGB": 3, "L": 1}


def check_config(cfg: CfgNode, options: ExportOptions) -> None:
    """Raise InputError where the file could not do what the config asks for."""
    # Before the model is built, which would be asked to do without speedups that it does not have.
    architecture = architecture_of(cfg)
    own_graph = hasattr(architecture, "export_graph")
    is_class = isinstance(architecture, type)
    if is_class and not own_graph and not issubclass(architecture, RetinaNetExt):
        raise _other_architecture(cfg.MODEL.META_ARCHITECTURE)
    node, means = cfg.MODEL.RETINANET, len(cfg.MODEL.PIXEL_MEAN)
    if cfg.INPUT.FORMAT not in CHANNELS or means != CHANNELS[cfg.INPUT.FORMAT]:
        raise InputError(
            f"INPUT.FORMAT is {cfg.INPUT.FORMAT} with {means} channels; {', '.join(CHANNELS)} are "
            "exported"
        )
    if cfg.INPUT.SIZE_TEST:
        raise InputError(
            f"INPUT.SIZE_TEST is {list(cfg.INPUT.SIZE_TEST)}, which the exported file does not "
            "know: it keeps the shape of a picture; set it to []"
        )
    if options.head != "nms" or own_graph:
        return
    if node.NMS_KIND == "soft":
        raise InputError(
            "MODEL.RETINANET.NMS_KIND is soft, which no exported operator does; pass --head "
            "decoded or raw (Predictor then does it), or --opts MODEL.RETINANET.NMS_KIND per_class"
        )
    if node.NMS_KIND == "per_class" and node.NUM_CLASSES > MOST_GROUPS:
        raise InputError(
            f"there are {node.NUM_CLASSES} classes, and NMS in the file takes memory for each of "
            f"them, {MOST_GROUPS} at most; pass --head decoded"
        )


def check_model(model: Any) -> None:
    """Raise InputError for a detector that the file would not be equal to."""
    name = type(model).__name__
    if not isinstance(model, RetinaNetExt):
        raise _other_architecture(name)
    if getattr(model.anchor_generator, "cell_anchors", None) is None:
        raise InputError(
            f"the anchors of {type(model.anchor_generator).__name__} are not the same at each "
            "location (it has no cell_anchors), so that a file could not hold them"
        )
    changed = type(model).forward_inference is not RetinaNetExt.forward_inference
    if type(model.decoder) is not DenseDecoder or changed:
        raise InputError(
            f"{name} decodes in a way of its own, which the exported file would not know; export "
            "a RetinaNetExt with a DenseDecoder"
        )
    coder: Any = model.decoder.box2box_transform
    in_sizes = type(coder) is Box2BoxTransformLinear and coder.normalize_by_size
    if type(coder) is not Box2BoxTransform and not in_sizes:
        raise InputError(
            f"MODEL.RETINANET.BOX_CODER gives {type(coder).__name__}, and only deltas and ltrb are "
            "exported"
        )
    if model.decoder.clip_before_nms:
        raise InputError(
            "MODEL.RETINANET.CLIP_BEFORE_NMS is True, which the exported file does not know; pass "
            "--opts MODEL.RETINANET.CLIP_BEFORE_NMS False"
        )
    for key, only in (("CLASSIFIER", "sigmoid"), ("SCORE_RULE", "sqrt_pq")):
        if (value := getattr(model.decoder, key.lower())) != only:
            raise InputError(
                f"MODEL.RETINANET.{key} is {value}, and only {only} is exported; run the model "
                "with the Predictor"
            )


def _other_architecture(name: str) -> InputError:
    hint = "run this one by Predictor, predict or serve"
    if name == "RetinaNet":
        hint = "weights of Detectron2's RetinaNet load into it as they are"
    return InputError(
        f"MODEL.META_ARCHITECTURE is {name}, and only RetinaNetExt is exported, or what has "
        f"export_graph; {hint}"
    )
