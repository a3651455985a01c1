"""Evaluation by tiles and views: a model that looks at each picture as the config asks for."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ...console import SHOWN
from ...errors import InputError
from ...inference.build import build_detector, describe_detector, is_pooled

__all__ = ["PooledModel", "evaluated_model", "log_pooled"]

logger = logging.getLogger(__name__)


class PooledModel(nn.Module):
    """Takes what a test loader gives, pictures that are not resized, and detects as a model does.

    So Detectron2's ``inference_on_dataset``, and every evaluator, work with it.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        """
        Args:
            cfg: reads ``TEST`` and ``INPUT``.
            model: its modes are switched with those of this module.
        """
        super().__init__()
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.training = model.training
        self.detector = build_detector(cfg, self.model)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Detections of N pictures.

        Args:
            batched_inputs: N with ``image``, (C, H, W) uint8 of the picture as it is, ``height``
                and ``width``.

        Returns:
            N with ``instances``, on the CPU.

        Raises:
            InputError: a picture was resized.
        """
        for x in batched_inputs:
            size, given = (x["height"], x["width"]), tuple(x["image"].shape[1:])
            if size != given:
                raise InputError(
                    f"{x.get('file_name', 'a picture')} is of {size[0]} x {size[1]} pixels, but "
                    f"the test loader gives {given[0]} x {given[1]}; tiles and views are cut from "
                    "the picture itself, so let build_test_loader resize nothing under TEST.TILES "
                    "and TEST.AUG"
                )
        pictures = [x["image"].permute(1, 2, 0).numpy() for x in batched_inputs]
        return [{"instances": found} for found in self.detector(pictures)]


def evaluated_model(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """``model``, or what looks at each picture several times with it, where the config asks so."""
    return PooledModel(cfg, model) if is_pooled(cfg) else model


def log_pooled(cfg: CfgNode) -> None:
    """Say how often pictures are looked at, and warn of tiles that are never cut."""
    if not is_pooled(cfg):
        return
    logger.info("evaluating by %s", describe_detector(cfg), extra=SHOWN)
    size = cfg.TEST.TILES.SIZE
    if not size:
        return
    for name in cfg.DATASETS.TEST:
        sizes = {(x.get("height"), x.get("width")) for x in DatasetCatalog.get(name)}
        if sizes and all(h and w and h <= size[0] and w <= size[-1] for h, w in sizes):
            logger.warning(
                "TEST.TILES.SIZE is %s, and no picture of %s is larger, so none is cut; make tiles "
                "smaller, or set it to ()",
                tuple(size),
                name,
            )
