"""MODEL.SPEEDUPS.AUTOCAST "auto": the precision that this processor computes fastest in."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode

from ...modeling.speedups.settings import best_autocast
from .engines import computes_in_bfloat16
from .sidecar import Sidecar, is_export

__all__ = ["settle_autocast"]


def settle_autocast(cfg: CfgNode) -> None:
    """Put a precision in the place of "auto", and say which; leave any other value.

    Of exported files only those for OpenVINO have a choice; the others keep their own precision.

    Args:
        cfg: not frozen, with its ``MODEL.WEIGHTS`` and a ``MODEL.DEVICE`` that is there.
    """
    speedups, weights = cfg.MODEL.SPEEDUPS, cfg.MODEL.WEIGHTS
    if speedups.AUTOCAST != "auto":
        return
    if is_export(weights) and not computes_in_bfloat16(Sidecar.read(weights)):
        speedups.AUTOCAST = ""
        print("the network computes in the precision of the exported file (AUTOCAST auto)")
        return
    speedups.AUTOCAST = best_autocast(torch.device(cfg.MODEL.DEVICE))
    print(f"the network computes in {speedups.AUTOCAST or 'float32'} (AUTOCAST auto)")
