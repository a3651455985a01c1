"""What a run was and what came of it, in one file: ``OUTPUT_DIR/run.json``."""

from __future__ import annotations

import datetime
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from ...data.loading.stream import TrainStream
from ...files import dump_json, write_text
from ..evaluating.hook import EvaluationHook
from ..launch.stopping import StopSignals
from .provenance import code_revision, dataset_fingerprint, machine, versions
from .writers import back_up

__all__ = ["FILE_NAME", "RunSummary", "images_of"]

FILE_NAME = "run.json"

logger = logging.getLogger(__name__)


class RunSummary(HookBase):
    """Write ``run.json`` at the start, after each evaluation and at the end.

    Its entries: ``status`` is "running", "finished", "stopped" (by a signal) or "failed", with the
    ``reason`` of the last two, and of a training that ended early; a run that was killed without
    notice stays "running". ``iterations`` are those that are done, ``seconds`` the time of all
    starts together. ``resumes`` lists when the run continued, from which iteration, and how
    the start before it ended. ``metrics`` has the ``final`` and the ``best`` evaluation. The rest
    says what the last start was made of: command, code, versions, machine, datasets, seed, config.
    Numbers that are not finite are ``null``.

    A file that cannot be written is a logged error; training continues. Where ``OUTPUT_DIR`` is
    an address ("://"), none is written. To be registered in all
    processes, after the hook that evaluates; the main one writes.
    """

    def __init__(
        self,
        cfg: CfgNode,
        seed: int,
        evaluation: EvaluationHook | None = None,
        num_images: Mapping[str, int] | None = None,
        signals: StopSignals | None = None,
    ):
        """
        Args:
            cfg: the run's config.
            seed: the one that is used, also where ``SEED`` is -1, unless the trainer has another
                ``run_seed`` by then, of a checkpoint.
            evaluation: has the results; None where there are none.
            num_images: images of each dataset by name, where known; else they are counted if that
                is quick.
            signals: tell which one stopped the run.
        """
        self._cfg = cfg
        self._seed = seed
        self._evaluation = evaluation
        self._num_images = num_images or {}
        self._signals = signals
        self._path = os.path.join(cfg.OUTPUT_DIR, FILE_NAME)
        self._content: dict[str, Any] = {}
        self._earlier_seconds = 0.0
        self._clock = 0.0
        self._num_evaluations = 0
        self._failing = False

    def before_train(self) -> None:
        """Describe this start, beside what the file says of earlier ones."""
        if not comm.is_main_process() or "://" in self._path:
            return
        self._clock = time.monotonic()
        start, now, code = self.trainer.start_iter, _now(), code_revision()
        old = self._read() if start > 0 else {}
        if start == 0:
            self._try(back_up, self._path)
        self._earlier_seconds = float(old.get("seconds") or 0.0)
        resumes = list(old.get("resumes") or [])
        if start > 0:
            before = {"status": old.get("status"), "reason": old.get("reason")}
            resumes.append({"time": now, "iteration": start, "code": code, "before": before})
        self._content = {
            "status": "running",
            "reason": "",
            "started": old.get("started") or now,
            "ended": None,
            "seconds": self._earlier_seconds,
            "iterations": start,
            "max_iterations": self.trainer.max_iter,
            "metrics": {},
            "resumes": resumes,
            "command": shlex.join([sys.executable, *sys.argv]),
            "folder": os.getcwd(),
            "code": code,
            "versions": versions(),
            "machine": machine(self._cfg.MODEL.DEVICE),
            "datasets": {
                key.lower(): [
                    dataset_fingerprint(name, self._num_images.get(name))
                    for name in self._cfg.DATASETS[key]
                ]
                for key in ("TRAIN", "TEST")
            },
            "seed": getattr(self.trainer, "run_seed", self._seed),
            "config": self._cfg,
        }
        self._write(start)

    def after_step(self) -> None:
        """Write where an evaluation has come."""
        if self._content and self._evaluation is not None:
            number = len(self._evaluation.evaluations)
            if number != self._num_evaluations:
                self._num_evaluations = number
                self._write(self.trainer.iter + 1)

    def after_train(self) -> None:
        """Write how it ended."""
        if not self._content:  # another process, or training never began
            return
        error, done = sys.exc_info()[1], self.trainer.iter
        if done >= self.trainer.max_iter:
            status = "finished"
            # Else one that the caller is handling.
            error = error if isinstance(error, SystemExit) else None
        elif error is None or isinstance(error, (SystemExit, KeyboardInterrupt)):
            status = "stopped"
        else:
            status = "failed"
        self._content.update(
            status=status,
            reason=self._reason(error),
            ended=_now(),
            max_iterations=self.trainer.max_iter,
        )
        self._write(done)

    def _write(self, iterations: int) -> None:
        seconds = self._earlier_seconds + time.monotonic() - self._clock
        self._content.update(
            seconds=round(seconds, 3), iterations=iterations, metrics=self._metrics()
        )
        self._try(write_text, self._path, dump_json(self._content, indent=1) + "\n")

    def _reason(self, error: BaseException | None) -> str:
        if isinstance(error, SystemExit) and self._signals is not None and self._signals.received:
            return self._signals.received
        return "" if error is None else _describe(error)

    def _metrics(self) -> dict[str, Any]:
        if self._evaluation is None or not self._evaluation.evaluations:
            return {}
        final, best = self._evaluation.evaluations[-1], self._evaluation.best
        metrics: dict[str, Any] = {"final": final._asdict()}
        if best is not None:
            metrics["best"] = {"by": self._cfg.TEST.BEST_METRIC, **best._asdict()}
        return metrics

    def _read(self) -> dict[str, Any]:
        """What an earlier start wrote; {} if that is gone."""
        try:
            with open(self._path, encoding="utf-8") as file:
                content = json.load(file)
            return content if isinstance(content, dict) else {}
        except (OSError, ValueError) as error:
            logger.warning("%s of the earlier start cannot be read: %s", self._path, error)
            return {}

    def _try(self, function: Any, *args: Any) -> None:
        try:
            function(*args)
        except OSError as error:
            if not self._failing:
                logger.error("cannot write %s: %s; training continues", self._path, error)
            self._failing = True
        else:
            self._failing = False


def images_of(cfg: CfgNode, data_loader: Any) -> dict[str, int]:
    """Images of the training set by its name, where a :class:`TrainStream` has only one."""
    names = cfg.DATASETS.TRAIN
    if len(names) != 1 or not isinstance(data_loader, TrainStream):
        return {}
    return {names[0]: data_loader.dataset_size}


def _describe(error: BaseException) -> str:
    """An exception in one line, an exit by what it says."""
    message = " ".join(str(getattr(error, "message", "") or error).split())[:1000]
    if isinstance(error, SystemExit) and not message.isdecimal():
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _now() -> str:
    """Local time with its offset, such as ``2025-03-01T12:00:00+01:00``."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
