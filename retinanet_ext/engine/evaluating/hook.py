"""Evaluation in training: what was measured when, which was best, and when to stop."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ...config import get_cfg
from ...console import SHOWN, hushed
from .best_metric import (
    Evaluation,
    MetricError,
    best_evaluation,
    evaluations_since_best,
    headline,
    missing_metric,
)
from .record import read_evaluation, write_evaluations

__all__ = ["EarlyStop", "EvaluationHook", "build_evaluation_hook"]

logger = logging.getLogger(__name__)

FILE_NAME = "evaluations.json"

SaveBest = Callable[[str, float, int], Any]


class EarlyStop(SystemExit):
    """The end of a training that got no better: with ``after_train`` all is as after MAX_ITER.

    It is no ``Exception``, so that nothing takes it for a failure; uncaught, it exits with code 0.
    """

    def __init__(self, message: str):
        super().__init__(0)
        self.message = message

    def __str__(self) -> str:
        return self.message


class EvaluationHook(HookBase):
    """Evaluate every ``period`` iterations and after the last one, and remember all results.

    Results go to the event storage under their full names, the nested ones of the last evaluation
    to ``trainer._last_eval_results``. All evaluations are in the state of this hook, and in
    OUTPUT_DIR/evaluations.json: a list of ``{"iteration": 99, "metrics": {"bbox/AP": 31.2, ...}}``,
    where numbers that are not finite are null.

    A checkpoint is written before the evaluation of its iteration, so that none is lost where the
    evaluation fails. A resumed run therefore takes that evaluation from the file, or makes up for
    it. The best evaluation and the patience follow only from the list: a run that is resumed
    decides as one that was never stopped.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], Any],
        output_dir: str,
        *,
        best_metric: str = "",
        metric_required: bool = False,
        save_best: SaveBest | None = None,
        patience: int = 0,
    ):
        """
        Args:
            period: iterations between two evaluations; 0 evaluates only after the last one.
            evaluate: returns a nested dict of numbers; called on all processes, and what the main
                one returns counts.
            output_dir: where evaluations.json goes.
            best_metric: full name of the result that says which evaluation is best; the smallest
                is where the name contains "loss". "" is none.
            metric_required: whether results without ``best_metric`` are an error.
            save_best: called on all processes with ``best_metric``, its value and the iteration,
                when an evaluation is the best so far; never with ``period`` 0.
            patience: evaluations in a row without a better value before training ends; 0 is never.
        """
        self.evaluations: list[Evaluation] = []
        self._period = period
        self._evaluate = evaluate
        self._path = os.path.join(output_dir, FILE_NAME)
        self._metric = best_metric
        self._metric_required = metric_required
        self._save_best = save_best
        self._patience = patience
        self._measured = -1  # iteration of the last evaluation in this process
        self._warned = False

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation so far."""
        return best_evaluation(self.evaluations, self._metric) if self._metric else None

    def before_train(self) -> None:
        """Make up for the evaluation that was due after the checkpoint was written."""
        start = self.trainer.start_iter
        self.evaluations = [x for x in self.evaluations if x.iteration < start]
        last = self.evaluations[-1].iteration if self.evaluations else -1
        if last != start - 1 and 0 < start < self.trainer.max_iter:
            # Also the last one of a training that continues to more iterations.
            found = comm.all_gather(read_evaluation(self._path, start - 1))[0]
            if found is not None:
                self._add(found, start - 1)
            elif self._period > 0 and start % self._period == 0:
                self._run(start - 1, start - 1)
        write_evaluations(self._path, self.evaluations)

    def before_step(self) -> None:
        """End the training, where the evaluations say so.

        Here and not right after an evaluation: all hooks are through with that iteration then.

        Raises:
            EarlyStop: there was no better evaluation for so long.
        """
        if not self.out_of_patience:
            return
        best, done = self.best, self.trainer.iter
        # From here on, all is as if the schedule ended here.
        self.trainer.max_iter = done
        value = "no finite value"
        if best is not None:
            value = f"the best is {best.metrics[self._metric]:.6g} at iteration {best.iteration}"
        raise EarlyStop(
            f"training ends after {done} iterations: {self._metric} did not get better in "
            f"{self._patience} evaluations, {value}; to continue, raise "
            "TEST.EARLY_STOPPING_PATIENCE and add --resume"
        )

    @property
    def out_of_patience(self) -> bool:
        """Whether the last evaluations were too many without a better one."""
        if self._patience <= 0 or not self._metric:
            return False
        return evaluations_since_best(self.evaluations, self._metric) >= self._patience

    def after_step(self) -> None:
        """Evaluate where it is due, but the last time in :meth:`after_train`."""
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._run(done - 1, done - 1)

    def after_train(self) -> None:
        """Evaluate at the end of a training that came to its end."""
        done = max(self.trainer.start_iter, self.trainer.max_iter)
        if self.trainer.iter >= self.trainer.max_iter and self._measured != done - 1:
            # The iteration that Detectron2 writes; writers skip what they have written before.
            self._run(done - 1, done, is_last=True)

    def state_dict(self) -> dict[str, Any]:
        """All evaluations so far, as plain Python."""
        return {"evaluations": [x.to_plain() for x in self.evaluations]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the evaluations of a checkpoint."""
        self.evaluations = [Evaluation.from_plain(x) for x in state_dict["evaluations"]]

    def _run(self, iteration: int, storage_iteration: int, is_last: bool = False) -> None:
        # The console has one line for each evaluation, and the tables of the last one.
        with contextlib.nullcontext() if is_last else hushed():
            results = self._evaluate()
        self._measured = iteration
        self.trainer._last_eval_results = results
        # Other processes have none, but must decide alike.
        flat = comm.all_gather(flatten_results_dict(results or {}))[0]
        if flat:
            found = Evaluation.of_results(iteration, flat)
            line = f"after {iteration + 1} iterations: {headline(found.metrics)}"
            logger.info("%s", line, extra=SHOWN)
            self._add(found, storage_iteration)
            write_evaluations(self._path, self.evaluations)
            self._check_metric(flat)
        # Processes may take different times, and start the next iteration together.
        comm.synchronize()

    def _add(self, evaluation: Evaluation, storage_iteration: int) -> None:
        """Put an evaluation into the list and the storage; save the model if it is the best."""
        known = any(x.iteration == evaluation.iteration for x in self.evaluations)
        kept = [x for x in self.evaluations if x.iteration != evaluation.iteration]
        self.evaluations = [*kept, evaluation]
        if not known:
            for name, value in evaluation.metrics.items():
                self.trainer.storage.put_scalar(
                    name, value, smoothing_hint=False, cur_iter=storage_iteration
                )
        if self._period > 0 and self._save_best is not None and self.best is evaluation:
            value = evaluation.metrics[self._metric]
            logger.info("best %s so far: %.6g", self._metric, value)
            self._save_best(self._metric, value, evaluation.iteration)

    def _check_metric(self, known: dict[str, Any]) -> None:
        if not self._metric or self._metric in known or self._period <= 0 or self._warned:
            return
        message = missing_metric(self._metric, known)
        if self._metric_required:
            raise MetricError(f"{message}. Set it to one of these and add --resume to continue")
        self._warned = True
        logger.info("%s; no best checkpoint is kept", message)


def build_evaluation_hook(
    cfg: CfgNode, evaluate: Callable[[], Any], save_best: SaveBest
) -> EvaluationHook:
    """The hook that TEST asks for; for the arguments see :class:`EvaluationHook`."""
    test = cfg.TEST
    patience = test.EARLY_STOPPING_PATIENCE
    chosen = test.BEST_METRIC != get_cfg().TEST.BEST_METRIC
    return EvaluationHook(
        test.EVAL_PERIOD,
        evaluate,
        cfg.OUTPUT_DIR,
        best_metric=test.BEST_METRIC,
        metric_required=chosen or patience > 0,
        save_best=save_best,
        patience=patience,
    )
