"""What the training loop itself costs: our model in Detectron2's loop and in ours."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import tempfile
import weakref
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import SimpleTrainer, TrainerBase, hooks
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage, JSONWriter
from torch import nn

from ...engine.checkpoint.checkpointer import SafeCheckpointer
from ...engine.checkpoint.hook import CheckpointHook
from ...engine.launch.stopping import StopHook
from ...engine.optim.ema import EMAHook, ModelEMA
from ...engine.records.hook import WriterHook
from ...engine.records.writers import MetricsFile
from ...engine.step.reproducibility import SeedEachStep
from ...engine.step.train_step import TrainStep
from ..agreement import Disagreement
from ..inputs import make_batch
from ..peers import DETECTRON2, OURS, build_pair
from ..runner import Benchmark
from .training_step import slow_learning

__all__ = ["run_training_loop"]

NEVER = 10**9  # iterations: to save and to end are no part of a step


def run_training_loop(bench: Benchmark) -> None:
    """One iteration with everything around it: the hooks, the log, what makes a run exact.

    The model is ours on both sides, with random weights. On our side it has an EMA too.

    Raises:
        Disagreement: the two loops lead to different weights.
    """
    task, settings = "training-loop", bench.settings
    _, model = build_pair(settings)
    batch = make_batch(settings, settings.batch)
    with contextlib.ExitStack() as stack:
        loops = {}
        for side, kind in ((OURS, _OurLoop), (DETECTRON2, _Detectron2Loop)):
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            loop = kind(copy.deepcopy(model), itertools.repeat(batch), settings.cfg, folder)
            stack.enter_context(loop.started())
            loops[side] = loop
        for loop in loops.values():
            loop.iterate()
        difference = _difference(*(loop.model for loop in loops.values()))
        if difference > 0:
            raise Disagreement(f"{task}: weights differ by {difference:.2e} after one iteration")
        bench.agree(task, {"weights, difference": difference})
        works = {side: loop.iterate for side, loop in loops.items()}
        what = f"iteration of the training loop, batch {settings.batch}"
        bench.time(task, what, works, note="our model in both; ours with EMA")


@torch.no_grad()
def _difference(left: nn.Module, right: nn.Module) -> float:
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


class _Loop(TrainerBase):
    """A training that is driven iteration by iteration."""

    run_seed = 0
    start_iter = 0
    max_iter = NEVER

    def __init__(self, model: nn.Module, batches: Any, cfg: Any, folder: str):
        super().__init__()
        self.model = model.train()
        self.optimizer = build_optimizer(slow_learning(cfg), model)
        self.iter = -1
        self._build(batches, folder)

    def _build(self, batches: Any, folder: str) -> None:
        raise NotImplementedError

    @contextlib.contextmanager
    def started(self) -> Any:
        self.storage = EventStorage(0)
        with self.storage:
            self.before_train()
        try:
            yield
        finally:
            with self.storage:
                self.after_train()

    def iterate(self) -> None:
        self.iter += 1
        # Both loops are in one process, each with a storage of its own.
        with self.storage:
            self.before_step()
            self._trainer.iter = self.iter
            self._trainer.run_step()
            self.after_step()


class _Detectron2Loop(_Loop):
    def _build(self, batches: Any, folder: str) -> None:
        self._trainer = SimpleTrainer(self.model, batches, self.optimizer)
        checkpointer = DetectionCheckpointer(self.model, folder)
        writers = [JSONWriter(os.path.join(folder, "metrics.json"))]
        self.register_hooks(
            [
                hooks.IterationTimer(),
                hooks.PeriodicCheckpointer(checkpointer, NEVER),
                hooks.PeriodicWriter(writers, period=20),
            ]
        )


class _OurLoop(_Loop):
    def _build(self, batches: Any, folder: str) -> None:
        self._trainer = TrainStep(self.model, batches, self.optimizer)
        checkpointer = SafeCheckpointer(self.model, folder, trainer=weakref.proxy(self))
        saving = CheckpointHook(checkpointer, NEVER)
        self.register_hooks(
            [
                hooks.IterationTimer(),
                SeedEachStep(),
                EMAHook(ModelEMA(self.model), checkpointer),
                saving,
                StopHook(saving.save_now, lambda: saving.is_saved),
                WriterHook([MetricsFile(os.path.join(folder, "metrics.json"))]),
            ]
        )
