"""The device that a run computes on, where it is not the one that its config names."""

from __future__ import annotations

import logging

import torch
from detectron2.config import CfgNode

from ...config.run_rules import check_amp_device
from ...errors import InputError
from .checks import check_computes

__all__ = ["resolve_device"]

logger = logging.getLogger(__name__)


def resolve_device(cfg: CfgNode) -> None:
    """Set ``MODEL.DEVICE`` to ``"cpu"``, with a log line, where its accelerator is absent.

    Raises:
        ValueError: torch does not know the device, or mixed precision is asked of a CPU.
    """
    try:
        kind = torch.device(cfg.MODEL.DEVICE).type
    except RuntimeError:
        raise InputError(
            f"MODEL.DEVICE is '{cfg.MODEL.DEVICE}', which torch does not know; use cuda or cpu"
        ) from None
    if kind not in ("cpu", "cuda", "mps"):
        check_computes(cfg.MODEL.DEVICE)
    absent = (kind == "cuda" and not torch.cuda.is_available()) or (
        kind == "mps" and not torch.backends.mps.is_available()
    )
    if absent:
        logger.info("MODEL.DEVICE is %s but torch finds none: running on the CPU", kind)
        cfg.MODEL.DEVICE = kind = "cpu"
    check_amp_device(cfg, kind)
