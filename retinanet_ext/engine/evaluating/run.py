"""All that an evaluation measures: metrics and losses, of the weights and of their average."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm
from torch import distributed as dist
from torch import nn

from ...console import SHOWN
from ...errors import TrainingFailed
from ...evaluation.val_loss import build_val_loss_loader, validation_losses
from ..launch.deferred import StartsWhole
from ..optim.ema import ModelEMA
from ..progress import with_bar

__all__ = ["measure", "share_buffers", "verify"]

logger = logging.getLogger(__name__)

Test = Callable[[CfgNode, nn.Module], Any]


def measure(cfg: CfgNode, model: nn.Module, test: Test, ema: ModelEMA | None = None) -> Any:
    """Evaluate on ``DATASETS.TEST``.

    Args:
        cfg: with ``TEST.VAL_LOSS``, losses are measured too.
        model: to be evaluated.
        test: ``DefaultTrainer.test`` or what has its contract.
        ema: an average of its weights, to be evaluated too; predictions go to ``OUTPUT_DIR/ema``.

    Returns:
        What ``test`` returns, with ``"val_loss"`` beside the metrics of each dataset, and ``"ema"``
        with all of it once more. Processes other than the main one get what ``test`` gives them.
    """
    results = _measure(cfg, model, test)
    if ema is not None:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "ema")
        cfg.freeze()
        logger.info("evaluating the average of the weights (EMA)", extra=SHOWN)
        with ema.applied():
            of_average = _measure(cfg, model, test)
        if comm.is_main_process():
            results["ema"] = of_average
    return results


def share_buffers(model: nn.Module) -> None:
    """Give all processes the buffers of the main one, which a checkpoint would hold.

    Running statistics of batch norms are each process's own in training. What is evaluated should
    be one model, and the same one after a resume.
    """
    if comm.get_world_size() == 1:
        return
    for module in model.modules():
        if not isinstance(module, FrozenBatchNorm2d):
            for buffer in module.buffers(recurse=False):
                dist.broadcast(buffer, src=0)


def verify(cfg: CfgNode, results: OrderedDict[str, Any]) -> None:
    """Compare with ``TEST.EXPECTED_RESULTS`` in the main process; a miss ends it with code 1.

    Raises:
        TrainingFailed: they are set, but nothing was evaluated.
    """
    if not comm.is_main_process() or not cfg.TEST.EXPECTED_RESULTS:
        return
    if not results:
        raise TrainingFailed(
            "TEST.EXPECTED_RESULTS is set but nothing was evaluated: DATASETS.TEST is empty"
        )
    verify_results(cfg, results)


def _measure(cfg: CfgNode, model: nn.Module, test: Test) -> Any:
    share_buffers(model)
    results = test(cfg, model)
    if not cfg.TEST.VAL_LOSS:
        return results
    for name in cfg.DATASETS.TEST:
        loader = StartsWhole(build_val_loss_loader(cfg, name))
        loader = with_bar(loader, f"validation loss {name}")
        losses = validation_losses(model, loader)
        text = "  ".join(f"{k} {v:.4g}" for k, v in losses.items())
        logger.info("validation loss of %s: %s", name, text, extra=SHOWN)
        if comm.is_main_process():
            of_set = results if len(cfg.DATASETS.TEST) == 1 else results.setdefault(name, {})
            of_set["val_loss"] = losses
    return results
