"""Training with Detectron2's hooks on any device, by one process or several."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import os
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..data.loading.stream import TrainStream
from ..errors import TrainingFailed
from ..evaluation import build_evaluator
from .checkpoint.checkpointer import SafeCheckpointer
from .checkpoint.hook import CheckpointHook
from .evaluating.hook import EarlyStop, build_evaluation_hook
from .evaluating.results import class_names, verify
from .evaluating.run import measure
from .failures.reports import MachineError, NonFiniteLoss, explain
from .failures.snapshot import NonFiniteReporter
from .launch.stopping import StopHook, StopSignals
from .loaders import build_test_loader, build_train_loader, draw_run_seed
from .optim.ema import EMAHook, ModelEMA
from .optim.freeze import freeze
from .optim.precise_bn import build_precise_bn
from .optim.solver import build_lr_scheduler, build_optimizer
from .progress import ProgressLine
from .records.config_changes import config_changes
from .records.event_state import restore_storage, storage_state
from .records.hook import WriterHook
from .records.remote_writers import build_remote_writers
from .records.run_summary import RunSummary
from .records.writers import MetricsFile, TensorBoard
from .step.seeding import SeedEachStep
from .step.train_step import build_train_step

logger = logging.getLogger(__name__)


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
    """:class:`detectron2.engine.DefaultTrainer` that loses nothing, on GPUs and CPUs.

    A run that was killed and resumed ends with the weights of one that was not: its checkpoints
    hold the position in the data, the curves, the evaluations and the average of the weights, and
    each iteration draws its random numbers from the run's seed. The evaluator of each dataset in
    ``DATASETS.TEST`` follows from the dataset's metadata.

    Attributes:
        run_seed: ``SEED``, or the one that was drawn for this run.
        ema: the average of the weights, with ``SOLVER.EMA.ENABLED``; else None.
    """

    iter: int

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
        loader = self.build_train_loader(cfg)
        self.run_seed = loader.seed if isinstance(loader, TrainStream) else draw_run_seed(cfg)
        self._reporter = NonFiniteReporter(cfg, self.run_seed)
        self._trainer = build_train_step(cfg, wrap_ddp(model), loader, optimizer, self._reporter)
        self.ema: ModelEMA | None = None
        averaged: dict[str, Any] = {}
        if cfg.SOLVER.EMA.ENABLED:
            self.ema = ModelEMA(model, cfg.SOLVER.EMA.DECAY, cfg.SOLVER.EMA.WARMUP)
            averaged["ema"] = self.ema
        self.checkpointer = SafeCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self), **averaged
        )
        self.checkpointer.thing_classes = class_names(cfg.DATASETS.TRAIN)
        self._signals = StopSignals()
        self._events: dict[str, Any] = {}
        self._position: dict[str, int] = {}
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Detectron2's ``build_model``, then ``MODEL.RETINANET.FREEZE``; see :mod:`.freeze`."""
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
        starts it anew.
        """
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Detectron2's test loader, with a progress bar on a terminal; errors name the file."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        """See :func:`retinanet_ext.evaluation.build_evaluator`."""
        return build_evaluator(cfg, dataset_name, output_folder)

    def build_hooks(self) -> list[HookBase]:
        """What happens around the steps, in the order in which it depends on each other.

        The state is saved before the evaluation of the same iteration, which a resumed run makes
        up for, so that nothing is lost where an evaluation fails or is killed.
        """
        cfg = self.cfg
        self._checkpoints = CheckpointHook(
            self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.CHECKPOINTS_KEPT
        )
        evaluation = build_evaluation_hook(
            cfg,
            lambda: measure(cfg, self.model, self.test, self.ema),
            self._save_best,
        )
        found = [
            hooks.IterationTimer(),
            SeedEachStep(),
            hooks.LRScheduler(),
            EMAHook(self.ema, self.checkpointer) if self.ema else None,
            build_precise_bn(cfg, self.model, self.build_train_loader),
            self._checkpoints,
            StopHook(self._checkpoints.save_now, lambda: self._checkpoints.is_saved, self._signals),
            evaluation,
            WriterHook(self.build_writers()),
            RunSummary(cfg, self.run_seed, evaluation, self._num_images(), self._signals),
        ]
        return [hook for hook in found if hook is not None]

    def build_writers(self) -> list[EventWriter]:
        """A progress line, ``metrics.json``, TensorBoard where it is installed, and ``WRITERS``."""
        output_dir = self.cfg.OUTPUT_DIR
        PathManager.mkdirs(output_dir)
        path = os.path.join(output_dir, "metrics.json")
        writers = [
            # First, since it adds the remaining time and the speed.
            ProgressLine(self.max_iter, self.cfg.SOLVER.IMS_PER_BATCH),
            JSONWriter(path) if "://" in output_dir else MetricsFile(path),
        ]
        if importlib.util.find_spec("tensorboard"):
            writers.append(TensorBoard(output_dir))
        return [*writers, *build_remote_writers(self.cfg)]

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in ``OUTPUT_DIR``, or start from ``MODEL.WEIGHTS``.

        Args:
            resume: whether to look for a checkpoint; without one, ``MODEL.WEIGHTS`` is loaded.

        Raises:
            WeightsError: no checkpoint, or not the weights, can be used.
            TrainingFailed: the processes of this job found different checkpoints.
        """
        super().resume_or_load(resume=resume)
        starts = comm.all_gather(self.start_iter)
        if len(set(starts)) > 1:
            raise TrainingFailed(
                f"the processes of this job would start at iterations {starts}: OUTPUT_DIR "
                f"'{self.cfg.OUTPUT_DIR}' must be one folder that all machines share"
            )
        _log_start(self, resume)

    def before_train(self) -> None:
        """Continue the curves of the checkpoint."""
        restore_storage(self.storage, self._events)
        self._events = {}
        super().before_train()

    def after_train(self) -> None:
        """Let every hook end its work, also where one of them fails."""
        self.storage.iter = self.iter
        first: BaseException | None = None
        for hook in self._hooks:
            try:
                hook.after_train()
            except BaseException as error:  # a signal, too
                first = first or error
        if first is not None:
            raise first

    def run_step(self) -> None:
        """One step, before which the position in the data is noted."""
        if isinstance(self.data_loader, TrainStream):
            self._position = self.data_loader.state_dict()
        super().run_step()

    def train(self) -> OrderedDict[str, Any]:
        """Train until ``SOLVER.MAX_ITER`` and return the last evaluation's results.

        Returns:
            Results as from :meth:`test`, checked against ``TEST.EXPECTED_RESULTS``; empty without
            ``DATASETS.TEST``. Processes other than the main one get no metrics.

        Raises:
            NonFiniteLoss: a loss is not finite; a report is written.
            MachineError: memory, disk, a worker or another process failed, told in a sentence.
            TrainingStopped: after a signal; the state is saved.
            CheckpointError: the final state could not be saved.
        """
        with self._signals:
            try:
                TrainerBase.train(self, self.start_iter, self.max_iter)
            except EarlyStop as end:
                logger.info("%s", end)
            except Exception as error:
                text = None if isinstance(error, NonFiniteLoss) else explain(error, self.cfg)
                self._rescue()
                if text is None:
                    raise
                raise MachineError(text) from error
            finally:
                if isinstance(self.data_loader, TrainStream):
                    self.data_loader.close()
        self._checkpoints.require_saved()
        results = OrderedDict(getattr(self, "_last_eval_results", None) or {})
        verify(self.cfg, results)
        return results

    def state_dict(self) -> dict[str, Any]:
        """Detectron2's, and what a resumed run needs to be the run that was not stopped."""
        state = super().state_dict()
        state["seed"] = self.run_seed
        state["events"] = storage_state(self.storage)
        state["config"] = self.cfg.dump()
        if isinstance(self.data_loader, TrainStream):
            state["data"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`state_dict`; what a checkpoint of Detectron2 lacks starts anew."""
        super().load_state_dict(state)
        self._events = state.get("events", {})
        # Detectron2's timer leaves out the first iterations of each start. An old time would come
        # as a line of its own, and this may be another machine.
        self._events.get("scalars", {}).pop("time", None)
        self.run_seed = self._reporter.run_seed = state.get("seed", self.run_seed)
        if isinstance(self.data_loader, TrainStream) and "data" in state:
            self.data_loader.load_state_dict(state["data"])
        else:
            logger.warning(
                "the checkpoint does not say which images come next: training starts again at the "
                "first ones"
            )
        changes = config_changes(state["config"], self.cfg) if "config" in state else []
        if changes and comm.is_main_process():
            logger.warning(
                "this run continues with another config than its checkpoint has:\n  %s",
                "\n  ".join(changes),
            )

    def _save_best(self, metric: str, value: float, iteration: int) -> None:
        """Save the weights that ``metric`` was measured of under "model"."""
        averaged = self.ema is not None and "ema" in metric.split("/")
        with self.ema.applied() if self.ema and averaged else contextlib.nullcontext():
            self._checkpoints.save_best(metric, value, iteration)

    def _rescue(self) -> None:
        """After an error in training, save what was reached, where that still can be done."""
        step = self._trainer
        if self.iter < self.start_iter or not hasattr(self, "storage"):
            return
        if step.finished_iter < self.iter:  # the error came in the middle of a step
            if step.finished_iter < self.start_iter or not step.roll_back():
                return
            if self._position and isinstance(self.data_loader, TrainStream):
                self.data_loader.load_state_dict(self._position)
            self.iter = self.storage.iter = step.finished_iter
        if not self._checkpoints.is_saved:
            self._checkpoints.save_now("after the error")

    def _num_images(self) -> dict[str, int]:
        """Images of the training set, where that is one set alone."""
        names, loader = self.cfg.DATASETS.TRAIN, self.data_loader
        if len(names) != 1 or not isinstance(loader, TrainStream):
            return {}
        return {names[0]: loader.dataset_size}


def evaluate(cfg: CfgNode, resume: bool = False) -> OrderedDict[str, Any]:
    """Evaluate ``MODEL.WEIGHTS``, or with ``resume`` the last checkpoint, on ``DATASETS.TEST``.

    Returns:
        Results as from :meth:`RetinaNetTrainer.test`, with ``TEST.VAL_LOSS`` also ``val_loss``,
        checked against ``TEST.EXPECTED_RESULTS``.
    """
    model = RetinaNetTrainer.build_model(cfg)
    checkpointer = SafeCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.thing_classes = class_names(cfg.DATASETS.TEST)
    checkpointer.allow_new_classes = False
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = OrderedDict(measure(cfg, model, RetinaNetTrainer.test))
    verify(cfg, results)
    return results


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
