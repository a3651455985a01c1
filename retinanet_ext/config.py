"""Every config key that this package adds to Detectron2's, and how a config file is read."""

from __future__ import annotations

import os
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from .validate import validate_cfg

__all__ = ["add_retinanet_ext_config", "get_cfg", "load_config_file", "validate_cfg"]


def add_retinanet_ext_config(cfg: CfgNode) -> None:
    """Add this package's keys to ``cfg``; keys that exist already keep their values.

    Every key of Detectron2 keeps its name, meaning and default.
    """
    retinanet = cfg.MODEL.RETINANET
    # Entry of DENSE_HEAD_REGISTRY.
    _add(retinanet, "HEAD", "RetinaNetHead")
    # Entry of ASSIGNER_REGISTRY.
    _add(retinanet, "ASSIGNER", "IoUAssigner")
    # The anchors with the best IoU of each object are positive even below IOU_THRESHOLDS. The paper
    # has no such rule; Detectron2 has it fixed to True.
    _add(retinanet, "ALLOW_LOW_QUALITY_MATCHES", True)
    # Entry of CLS_LOSS_REGISTRY; FocalLoss reads FOCAL_LOSS_ALPHA (the paper's alpha) and
    # FOCAL_LOSS_GAMMA (gamma). Detectron2's BBOX_REG_LOSS_TYPE chooses the box loss: its own names
    # (smooth_l1, giou, diou, ciou) or any entry of BOX_LOSS_REGISTRY.
    _add(retinanet, "CLS_LOSS", "FocalLoss")
    # How the focal loss is computed: "auto" makes loss and gradient in one pass over the logits, by
    # a Triton kernel on CUDA where it runs, else chunk by chunk; "triton" and "chunked" ask for one
    # of these; "reference" is the readable definition with autograd. Equal within float rounding.
    _add(retinanet, "LOSS_KERNEL", "auto")

    # From this number of classes on, training computes the last classification convolution and the
    # focal loss piece by piece, so that the logits never exist as a whole; 0 is always, -1 never.
    _add(retinanet, "FUSED_CLS_LOSS_MIN_CLASSES", 400)

    # How the network is computed. All but AUTOCAST give the same numbers within float rounding.
    _add(cfg.MODEL, "SPEEDUPS", CfgNode())
    speedups = cfg.MODEL.SPEEDUPS
    # Multiply FrozenBatchNorm2d into the convolution before it, at run time.
    _add(speedups, "FOLD_FROZEN_BN", True)
    # Winograd's algorithm for large 3x3 convolutions on the CPU.
    _add(speedups, "WINOGRAD", True)
    # Where the channels_last memory format is used: "all", "backbone", "none", or "auto" (backbone
    # on the CPU, else none).
    _add(speedups, "CHANNELS_LAST", "auto")
    # torch.compile for backbone and head; each input size is compiled anew. COMPILE_MODE is
    # "default", "reduce-overhead" (CUDA graphs) or "max-autotune".
    _add(speedups, "COMPILE", False)
    _add(speedups, "COMPILE_MODE", "default")
    # "" or "bfloat16": the precision of backbone and head on CPU or CUDA, losses in float32.
    _add(speedups, "AUTOCAST", "")

    anchors = cfg.MODEL.ANCHOR_GENERATOR
    # Read by RetinaNetAnchorGenerator in place of SIZES. Smallest anchor of each feature level:
    # square root of its area, in pixels of the network's input.
    _add(anchors, "OCTAVE_BASE_SIZES", [32.0, 64.0, 128.0, 256.0, 512.0])
    # Number of sizes per level, 2^(i/S) times the base.
    _add(anchors, "SCALES_PER_OCTAVE", 3)

    solver = cfg.SOLVER
    # SGD (MOMENTUM, NESTEROV) or AdamW.
    _add(solver, "OPTIMIZER", "SGD")
    # LR_SCHEDULER_NAME also takes OneCycleLR: a cosine rise from WARMUP_FACTOR * BASE_LR to BASE_LR
    # over this share of MAX_ITER, then a cosine fall to BASE_LR_END.
    _add(solver, "ONE_CYCLE_PCT_START", 0.3)


def _add(node: CfgNode, key: str, default: Any) -> None:
    if key not in node:
        node[key] = default


def get_cfg() -> CfgNode:
    """Detectron2's default config with this package's keys added."""
    cfg = get_detectron2_cfg()
    add_retinanet_ext_config(cfg)
    return cfg


def load_config_file(
    cfg: CfgNode, path: str | os.PathLike[str], allow_unsafe: bool = False
) -> None:
    """Merge a yaml file and its ``_BASE_`` files into ``cfg``.

    Detectron2's ``cfg.merge_from_file`` runs Python code that a yaml file asks for; here that takes
    ``allow_unsafe``.

    Raises:
        FileNotFoundError: if there is no such file.
        KeyError: if the file has an unknown key.
        ValueError: if the file is not yaml, or asks for code to be run without ``allow_unsafe``.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"config file '{path}' does not exist (from {os.getcwd()})")
    try:
        cfg.merge_from_file(path, allow_unsafe=allow_unsafe)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(
            f"config file '{path}' or its _BASE_ holds the yaml tag of a Python object "
            f"({error.problem}), which would run code. If you trust it (Detectron2's own "
            "Base-RetinaNet.yaml has one), pass --allow-unsafe-yaml"
        ) from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config file '{path}' or its _BASE_ is not yaml: {reason}") from error
