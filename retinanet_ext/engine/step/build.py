"""The training step that a config asks for."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from detectron2.config import CfgNode
from torch import nn

from ..failures.nonfinite import nonfinite_hint
from .bad_batches import Report, SkipBadBatches
from .micro_batches import Batch
from .train_step import TrainStep

__all__ = ["build_train_step"]


def build_train_step(
    cfg: CfgNode,
    model: nn.Module,
    data_loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    on_nonfinite: Report | None = None,
) -> TrainStep:
    """The step that SOLVER.ACCUM_STEPS, AMP, CLIP_GRADIENTS and MAX_SKIPPED_BATCHES ask for."""
    solver = cfg.SOLVER
    return TrainStep(
        model,
        data_loader,
        optimizer,
        accum_steps=solver.ACCUM_STEPS,
        precision=getattr(torch, solver.AMP.PRECISION) if solver.AMP.ENABLED else None,
        unscale=solver.CLIP_GRADIENTS.ENABLED,
        bad_batches=SkipBadBatches(
            solver.MAX_SKIPPED_BATCHES, on_nonfinite, hint=nonfinite_hint(cfg)
        ),
    )
