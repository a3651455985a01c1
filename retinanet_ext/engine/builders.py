"""The parts of a training, each built from the config by a method that a subclass may override."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator
from torch import nn

from ..evaluation import build_evaluator
from ..registry import require_keys
from .evaluating.pooled import evaluated_model, log_pooled
from .impossible_model import impossible_model_explained
from .loaders import build_test_loader, build_train_loader
from .optim.freeze import freeze
from .optim.solver import build_lr_scheduler, build_optimizer

__all__ = ["BuildsParts"]


class BuildsParts(DefaultTrainer):
    """Detectron2's trainer with the ``build_*`` methods of this package."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Detectron2's ``build_model``, then ``MODEL.RETINANET.FREEZE``; see :mod:`.freeze`.

        Raises:
            ConfigError: the config lacks this package's keys.
            InputError: the model cannot be built from these settings.
        """
        require_keys(cfg, "MODEL.RETINANET.FREEZE")  # whatever the model is, this trainer is ours
        with impossible_model_explained(cfg):
            model = super().build_model(cfg)
        freeze(model, cfg.MODEL.RETINANET.FREEZE)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`retinanet_ext.engine.optim.solver.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """See :func:`retinanet_ext.engine.optim.solver.build_lr_scheduler`."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """The training images, with ``INPUT.AUG`` and ignored regions, see :class:`TrainStream`.

        ``DATALOADER.ON_ERROR`` says what happens to an image that cannot be loaded; an error names
        its file. Another kind of iterable of batches may be returned instead; a resumed run then
        starts it again.
        """
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Detectron2's test loader, with a progress bar on a terminal; errors name the file.

        Under ``TEST.TILES`` and ``TEST.AUG`` pictures are not resized.
        """
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None,
    ) -> Any:
        """Detectron2's, where ``TEST.TILES`` and ``TEST.AUG`` ask so by tiles and views."""
        log_pooled(cfg)
        return super().test(cfg, evaluated_model(cfg, model), evaluators)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        """See :func:`retinanet_ext.evaluation.build_evaluator`."""
        return build_evaluator(cfg, dataset_name, output_folder)
