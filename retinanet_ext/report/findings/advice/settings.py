"""What the rules want to know of the model's config."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

__all__ = ["model_settings"]


def model_settings(cfg: CfgNode) -> dict[str, Any]:
    """The report's ``model``: settings that advice depends on; all of them can be json.

    Args:
        cfg: of the training.
    """
    node = cfg.MODEL.RETINANET
    reads_steps = cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
    return {
        "box_loss": str(node.BBOX_REG_LOSS_TYPE),
        "norm": str(node.NORM),
        "nms_thresh": float(node.NMS_THRESH_TEST),
        "quality_branch": str(node.get("QUALITY_BRANCH", "")),
        "min_size_test": int(cfg.INPUT.MIN_SIZE_TEST),
        "max_size_test": int(cfg.INPUT.MAX_SIZE_TEST),
        "keeps_best": bool(cfg.TEST.get("BEST_METRIC", "")),
        "max_iter": int(cfg.SOLVER.MAX_ITER),
        "steps": [int(step) for step in cfg.SOLVER.STEPS] if reads_steps else [],
    }
