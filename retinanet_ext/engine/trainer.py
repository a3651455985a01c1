"""Training with Detectron2's hooks on any device, by one process or several."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..data.augment import build_train_mapper, needs_dataset
from ..data.bad_images import LoadOrFail, LoadOrSkip
from ..data.register import load_class_names
from ..evaluation import build_evaluator
from .checkpointer import SafeCheckpointer
from .freeze import freeze
from .hooks import ProgressLine, with_bar
from .solver import build_lr_scheduler, build_optimizer

logger = logging.getLogger(__name__)

BAD_IMAGE_WAY_OUT = "mend or remove it, or set DATALOADER.ON_ERROR to skip"


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Return ``model`` ready for several processes: itself where there is one process.

    Buffers are not broadcast at each step: batch statistics stay each process's own, as in
    Detectron2, and the detector reduces its loss normalizer by itself.
    """
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    known = inspect.signature(DistributedDataParallel).parameters
    # Recent PyTorch deprecates the older name.
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {sync: False}
    if on_gpu:  # on other devices no ids are accepted
        options["device_ids"] = [torch.cuda.current_device()]
    return DistributedDataParallel(model, **options)


class RetinaNetTrainer(DefaultTrainer):
    """:class:`detectron2.engine.DefaultTrainer` that also runs on CPUs and returns its results.

    The evaluator of each dataset in ``DATASETS.TEST`` follows from the dataset's metadata;
    ``SOLVER.OPTIMIZER`` and ``SOLVER.LR_SCHEDULER_NAME`` choose from :mod:`.solver`.
    """

    def __init__(self, cfg: CfgNode):
        """Build model, optimizer, schedule, data loader and hooks for ``cfg``."""
        # Not DefaultTrainer.__init__, which gives DistributedDataParallel device ids on CPUs too.
        TrainerBase.__init__(self)
        _ensure_logging()
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER

        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        loop = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = loop(wrap_ddp(model), self.build_train_loader(cfg), optimizer)
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.checkpointer.thing_classes = _class_names(cfg.DATASETS.TRAIN)
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Detectron2's ``build_model``, then ``MODEL.RETINANET.FREEZE``; see :mod:`.freeze`."""
        model = super().build_model(cfg)
        freeze(model, cfg.MODEL.RETINANET.FREEZE)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`retinanet_ext.engine.solver.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """See :func:`retinanet_ext.engine.solver.build_lr_scheduler`."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Detectron2's training loader, with ``INPUT.AUG`` and ignored regions.

        ``DATALOADER.ON_ERROR`` says what happens to an image that cannot be loaded; an error names
        its file.
        """
        fails = cfg.DATALOADER.ON_ERROR == "fail"
        if fails and not needs_dataset(cfg):
            fail = LoadOrFail(build_train_mapper(cfg), BAD_IMAGE_WAY_OUT)
            return build_detection_train_loader(cfg, mapper=fail)
        dataset = DatasetFromList(
            get_detection_dataset_dicts(
                cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
            ),
            copy=False,
        )
        mapper = build_train_mapper(cfg, dataset)
        wrapped = LoadOrFail(mapper, BAD_IMAGE_WAY_OUT) if fails else LoadOrSkip(mapper, dataset)
        return build_detection_train_loader(cfg, mapper=wrapped, dataset=dataset)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Detectron2's test loader, with a progress bar on a terminal; errors name the file."""
        # Never skipped: the results would be those of another dataset.
        mapper = LoadOrFail(
            DatasetMapper(cfg, is_train=False), "mend it, or remove it from the set"
        )
        loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        return with_bar(loader, f"evaluate {dataset_name}")

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        """See :func:`retinanet_ext.evaluation.build_evaluator`."""
        return build_evaluator(cfg, dataset_name, output_folder)

    def build_writers(self) -> list[EventWriter]:
        """A progress line, ``metrics.json``, and TensorBoard files where it is installed."""
        output_dir = self.cfg.OUTPUT_DIR
        PathManager.mkdirs(output_dir)
        writers = [
            ProgressLine(self.max_iter, self.cfg.SOLVER.IMS_PER_BATCH),
            JSONWriter(os.path.join(output_dir, "metrics.json")),
        ]
        if importlib.util.find_spec("tensorboard"):
            writers.append(TensorboardXWriter(output_dir))
        return writers

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in ``OUTPUT_DIR``, or start from ``MODEL.WEIGHTS``.

        Args:
            resume: whether to look for a checkpoint; without one, ``MODEL.WEIGHTS`` is loaded.

        Raises:
            RuntimeError: the processes of this job found different checkpoints.
        """
        super().resume_or_load(resume=resume)
        starts = comm.all_gather(self.start_iter)
        if len(set(starts)) > 1:
            raise RuntimeError(
                f"the processes of this job would start at iterations {starts}: OUTPUT_DIR "
                f"'{self.cfg.OUTPUT_DIR}' must be one folder that all machines share"
            )
        _log_start(self, resume)

    def train(self) -> OrderedDict[str, Any]:
        """Train until ``SOLVER.MAX_ITER`` and return the last evaluation's results.

        Returns:
            Results as from :meth:`test`, checked against ``TEST.EXPECTED_RESULTS``; empty without
            ``DATASETS.TEST``. Processes other than the main one get no metrics.
        """
        TrainerBase.train(self, self.start_iter, self.max_iter)
        results = OrderedDict(getattr(self, "_last_eval_results", {}))
        _verify(self.cfg, results)
        return results


def evaluate(cfg: CfgNode, resume: bool = False) -> OrderedDict[str, Any]:
    """Evaluate ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint, on ``DATASETS.TEST``.

    Returns:
        Results as from :meth:`RetinaNetTrainer.test`, checked against ``TEST.EXPECTED_RESULTS``.
    """
    model = RetinaNetTrainer.build_model(cfg)
    checkpointer = SafeCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.thing_classes = _class_names(cfg.DATASETS.TEST)
    checkpointer.allow_new_classes = False
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = RetinaNetTrainer.test(cfg, model)
    _verify(cfg, results)
    return results


def _class_names(datasets: Sequence[str]) -> Sequence[str]:
    """Names of the classes of a run's datasets, which agree; () if there are none."""
    return (load_class_names(datasets[0]) if datasets else None) or ()


def _verify(cfg: CfgNode, results: OrderedDict[str, Any]) -> None:
    """Compare with ``TEST.EXPECTED_RESULTS`` in the main process; a miss ends it with code 1."""
    if not comm.is_main_process() or not cfg.TEST.EXPECTED_RESULTS:
        return
    if not results:
        raise RuntimeError(
            "TEST.EXPECTED_RESULTS is set but nothing was evaluated: DATASETS.TEST is empty"
        )
    verify_results(cfg, results)


def _ensure_logging() -> None:
    """Show log lines also in a script that set up no logging."""
    for name in ("detectron2", "retinanet_ext"):
        if not logging.getLogger(name).isEnabledFor(logging.INFO):
            setup_logger(name=name)


def _log_start(trainer: RetinaNetTrainer, resume: bool) -> None:
    """Say where training starts, and warn of the checkpoints it will overwrite."""
    output_dir = trainer.cfg.OUTPUT_DIR
    if trainer.start_iter:
        checkpoint = trainer.checkpointer.get_checkpoint_file()
        logger.info("resuming at iteration %d from %s", trainer.start_iter, checkpoint)
    elif resume:
        logger.info("no checkpoint in %s to resume from: starting at iteration 0", output_dir)
    elif trainer.checkpointer.has_checkpoint():
        logger.warning(
            "%s holds checkpoints of an earlier run, which this run will overwrite; to continue "
            "that one instead, add --resume; to keep it, set another OUTPUT_DIR",
            output_dir,
        )
