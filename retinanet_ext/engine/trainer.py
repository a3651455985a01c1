"""Training with Detectron2's hooks on any device, by one process or several."""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from ..console import SHOWN
from ..data.datasets.own_dicts import check_own_datasets
from ..data.datasets.read_once import hold_datasets, release_datasets
from ..data.datasets.register import class_names_of
from ..data.loading.stream import TrainStream
from .builders import BuildsParts
from .checkpoint.after_error import save_after_error
from .checkpoint.checkpointer import SafeCheckpointer
from .checkpoint.hook import CheckpointHook, NonFiniteWeights
from .checkpoint.same_model import require_same_start
from .describe import log_end, log_start
from .evaluating.hook import EarlyStop, build_evaluation_hook
from .evaluating.run import measure, verify
from .failures.nonfinite import NonFiniteLoss
from .failures.reports import MachineError, explain
from .failures.snapshot import NonFiniteReporter
from .job import ensure_logging
from .launch.stopping import StopHook, StopSignals
from .loaders import draw_run_seed
from .optim.ema import EMAHook, build_ema
from .optim.precise_bn import build_precise_bn
from .optim.restart import cfg_from, new_schedule, schedule_start
from .records import run_state
from .records.build import build_writers
from .records.event_state import restore_storage
from .records.hook import WriterHook
from .records.run_summary import RunSummary, images_of
from .step.build import build_train_step
from .step.reproducibility import SeedEachStep
from .step.wrap_ddp import wrap_ddp

__all__ = ["RetinaNetTrainer"]

logger = logging.getLogger(__name__)


class RetinaNetTrainer(BuildsParts):
    """:class:`detectron2.engine.DefaultTrainer` that loses nothing, on GPUs and CPUs.

    A run that was killed and resumed ends with the weights of one that was not: its checkpoints
    hold the position in the data, the curves, the evaluations and the average of the weights, and
    each iteration draws its random numbers from the run's seed. The evaluator of each dataset in
    ``DATASETS.TEST`` follows from the dataset's metadata.

    It assumes what ``DefaultTrainer`` assumes: a model that gives a dict of losses, one optimizer,
    one schedule by iterations, one stream of batches, all built from a config. To do otherwise:

    1. Override a ``build_*`` method: each is called once, except for loaders and evaluators. Of
       ``build_hooks``, return ``super()``'s list with your own hooks in it, or only your own:
       nothing is saved, evaluated, written or seeded then. A ``build_train_loader`` that returns no
       :class:`TrainStream` works, but a resumed run starts its data from the first image.
    2. Use the parts: :func:`.step.build.build_train_step`, :func:`.loaders.build_train_loader`,
       :func:`.optim.solver.build_optimizer` and the hooks work with any of Detectron2's trainers.
    3. Train the model, which gives a dict of losses, as Detectron2's ``plain_train_net.py`` does.

    Attributes, beside those of ``DefaultTrainer``:
        run_seed: ``SEED``, or the one that was drawn for this run.
        ema: the average of the weights, with ``SOLVER.EMA.ENABLED``; else None.
    """

    iter: int

    def __init__(self, cfg: CfgNode):
        """Build model, optimizer, schedule, data loader and hooks for ``cfg``."""
        # Not DefaultTrainer.__init__, which gives DistributedDataParallel device ids on CPUs too.
        TrainerBase.__init__(self)
        ensure_logging()
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER

        if hold_datasets(cfg.DATASETS.TRAIN):  # nobody has set up, and looked at them
            check_own_datasets(cfg)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.schedule_start = 0  # its first iteration
        loader = self.build_train_loader(cfg)
        release_datasets()
        self.run_seed = loader.seed if isinstance(loader, TrainStream) else draw_run_seed(cfg)
        self._reporter = NonFiniteReporter(cfg, self.run_seed)
        self._trainer = build_train_step(cfg, wrap_ddp(model), loader, optimizer, self._reporter)
        self.ema = build_ema(cfg, model)
        averaged: dict[str, Any] = {"ema": self.ema} if self.ema else {}
        self.checkpointer = SafeCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            thing_classes=class_names_of(cfg.DATASETS.TRAIN),
            trainer=weakref.proxy(self),
            **averaged,
        )
        self._checkpoints = CheckpointHook(
            self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.CHECKPOINTS_KEPT
        )
        self._checkpoints.trainer = weakref.proxy(self)  # also where build_hooks leaves it out
        self._signals = StopSignals()
        self._events: dict[str, Any] = {}  # the curves of a checkpoint
        self._position: dict[str, int] = {}  # in the data, before this step
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        """What happens around the steps, in the order in which it depends on each other.

        The state is saved before the evaluation of the same iteration, which a resumed run makes
        up for, so that nothing is lost where an evaluation fails or is killed.
        """
        cfg, saving = self.cfg, self._checkpoints
        trainer: Any = weakref.proxy(self)  # its hooks must not keep it alive
        evaluation = build_evaluation_hook(
            cfg,
            lambda: measure(cfg, trainer.model, trainer.test, trainer.ema),
            lambda *best: trainer._save_best(*best),
        )
        found = [
            hooks.IterationTimer(),
            SeedEachStep(),
            hooks.LRScheduler(),
            EMAHook(self.ema, self.checkpointer) if self.ema else None,
            build_precise_bn(cfg, self.model, self.build_train_loader),
            saving,
            StopHook(saving.save_now, lambda: saving.is_saved, self._signals),
            evaluation,
            WriterHook(self.build_writers()),
            RunSummary(
                cfg, self.run_seed, evaluation, images_of(cfg, self.data_loader), self._signals
            ),
        ]
        return [hook for hook in found if hook is not None]

    def build_writers(self) -> list[EventWriter]:
        """See :func:`.records.build.build_writers`."""
        return build_writers(self.cfg, self.max_iter)

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in ``OUTPUT_DIR``, or start from ``MODEL.WEIGHTS``.

        Args:
            resume: whether to look for a checkpoint; without one, ``MODEL.WEIGHTS`` is loaded.

        Raises:
            WeightsError: no checkpoint, or not the weights, can be used.
            TrainingFailed: the processes of this job found different checkpoints.
        """
        super().resume_or_load(resume=resume)
        require_same_start(self.start_iter, self.cfg.OUTPUT_DIR)
        log_start(self, resume)

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
            NonFiniteLoss: a loss or a gradient is not finite; a report is written.
            NonFiniteWeights: a step has led to such weights, which are not saved.
            MachineError: memory, disk, a worker or another process failed, reported in a sentence.
            TrainingStopped: after a signal; the state is saved.
            CheckpointError: the final state could not be saved.
        """
        started = time.monotonic()
        with self._signals:
            try:
                TrainerBase.train(self, self.start_iter, self.max_iter)
            except EarlyStop as end:
                logger.info("%s", end, extra=SHOWN)
            except Exception as error:
                text = None if isinstance(error, NonFiniteLoss) else explain(error, self.cfg)
                if not isinstance(error, NonFiniteWeights):
                    save_after_error(self, self._checkpoints, self._trainer, self._position)
                if text is None:
                    raise
                raise MachineError(text) from error
            finally:
                if isinstance(self.data_loader, TrainStream):
                    self.data_loader.close()
        self._checkpoints.require_saved()
        results = OrderedDict(getattr(self, "_last_eval_results", None) or {})
        log_end(self, time.monotonic() - started)
        verify(self.cfg, results)
        return results

    def state_dict(self) -> dict[str, Any]:
        """Detectron2's, and what a resumed run needs to be the run that was not stopped."""
        ours = run_state.run_state(self.run_seed, self.storage, self.cfg, self.data_loader)
        return {**super().state_dict(), **ours, "schedule_start": self.schedule_start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`state_dict`; state missing from a Detectron2 checkpoint is initialized."""
        base_lrs = list(self.scheduler.base_lrs)
        start, is_new = schedule_start(state, self.cfg, run_state.ended_at(state))
        if start and not is_new:  # the state says how far it has come
            self.scheduler = self.build_lr_scheduler(cfg_from(self.cfg, start), self.optimizer)
        super().load_state_dict(state)
        if is_new:
            self.scheduler = new_schedule(
                self.cfg, start, self.optimizer, base_lrs, self.build_lr_scheduler
            )
        self.schedule_start = start
        self._events = run_state.events_of(state)
        self.run_seed = self._reporter.run_seed = run_state.seed_of(state, self.run_seed)
        run_state.continue_data(self.data_loader, state)
        run_state.warn_of_changes(state, self.cfg)

    def _save_best(self, metric: str, value: float, iteration: int) -> None:
        """Save the weights that ``metric`` was measured of under "model"."""
        averaged = self.ema is not None and "ema" in metric.split("/")
        with self.ema.applied() if self.ema and averaged else contextlib.nullcontext():
            self._checkpoints.save_best(metric, value, iteration)
