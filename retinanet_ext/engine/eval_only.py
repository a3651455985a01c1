"""Evaluation without training."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation.testing import flatten_results_dict
from torch import nn

from ..console import SHOWN
from ..data.datasets.register import class_names_of
from ..errors import InputError, listed
from ..inference.exported import is_export
from ..inference.exported.model import build_exported
from .checkpoint.checkpointer import SafeCheckpointer
from .describe import describe_device, describe_model
from .evaluating.best_metric import headline
from .evaluating.run import measure, verify
from .trainer import RetinaNetTrainer

__all__ = ["evaluate"]

logger = logging.getLogger(__name__)


def evaluate(cfg: CfgNode, resume: bool = False) -> OrderedDict[str, Any]:
    """Evaluate ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint, on ``DATASETS.TEST``.

    Returns:
        Results as from :meth:`RetinaNetTrainer.test`, with ``TEST.VAL_LOSS`` also ``val_loss``,
        checked against ``TEST.EXPECTED_RESULTS``.

    ``MODEL.WEIGHTS`` may be an exported file, with the config that
    :func:`~retinanet_ext.inference.exported.cfg_of_export` makes of it.
    """
    model, described = _loaded(cfg, resume)
    for line in (
        f"model: {described}",
        f"evaluating on {', '.join(cfg.DATASETS.TEST)}; device: {describe_device(cfg)}",
    ):
        logger.info("%s", line, extra=SHOWN)
    results = OrderedDict(measure(cfg, model, RetinaNetTrainer.test))
    if results:
        logger.info("%s", headline(flatten_results_dict(results)), extra=SHOWN)
        logger.info("predictions and log.txt are in %s", cfg.OUTPUT_DIR, extra=SHOWN)
    verify(cfg, results)
    return results


def _loaded(cfg: CfgNode, resume: bool) -> tuple[nn.Module, str]:
    """The model, and what it is in words."""
    names = class_names_of(cfg.DATASETS.TEST)
    if is_export(cfg.MODEL.WEIGHTS):
        exported = build_exported(cfg)
        known = exported.sidecar.class_names
        if names and list(names) != known:
            raise InputError(
                f"'{cfg.MODEL.WEIGHTS}' knows the classes {listed(known)}, but those of "
                f"{cfg.DATASETS.TEST[0]} are {listed(names)}; evaluate on a dataset of the same "
                "classes in the same order"
            )
        return exported.eval(), f"{cfg.MODEL.WEIGHTS} by {exported.engine.name}"
    model = RetinaNetTrainer.build_model(cfg)
    checkpointer = SafeCheckpointer(
        model, cfg.OUTPUT_DIR, thing_classes=names, allow_new_classes=False
    )
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    weights = checkpointer.get_checkpoint_file() if resume and checkpointer.has_checkpoint() else ""
    return model, f"{describe_model(cfg, model)}, weights {weights or cfg.MODEL.WEIGHTS}"
