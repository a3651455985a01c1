"""The evaluations of a run, and which of them is the best by one of its numbers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import InputError, UserError

__all__ = [
    "Evaluation",
    "MetricError",
    "best_evaluation",
    "evaluations_since_best",
    "headline",
    "is_smaller_better",
    "missing_metric",
]

MAX_NAMES = 8
HEADLINE = ("AP", "AP50", "AP75", "AR100", "AR@100", "AR@1000", "total")
"""Last parts of the names of the results that one line has room for."""


class MetricError(UserError, ValueError):
    """``TEST.BEST_METRIC`` names no result of the evaluation; its text is for the user."""


class Evaluation(NamedTuple):
    """One evaluation of a run.

    Attributes:
        iteration: of the last step before it, counted from 0, as in the names of checkpoints.
        metrics: results by full name, such as ``bbox/AP``.
    """

    iteration: int
    metrics: dict[str, float]

    @classmethod
    def of_results(cls, iteration: int, results: Mapping[str, Any]) -> Evaluation:
        """Take results by full name.

        Raises:
            ValueError: one of them is no number.
        """
        metrics = {}
        for name, value in results.items():
            try:
                metrics[name] = float(value)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"an evaluation must give numbers, got {value!r} as {name}"
                ) from error
        return cls(iteration, metrics)

    def to_plain(self) -> dict[str, Any]:
        """For JSON and checkpoints."""
        return {"iteration": self.iteration, "metrics": dict(self.metrics)}

    @classmethod
    def from_plain(cls, entry: Mapping[str, Any]) -> Evaluation:
        """The evaluation that :meth:`to_plain` gave ``entry`` for.

        ``None``, what JSON has of a number that is not finite, is NaN. Its name as text, which
        earlier versions wrote, is read as well.
        """
        metrics = {
            str(name): math.nan if value is None else float(value)
            for name, value in entry["metrics"].items()
        }
        return cls(int(entry["iteration"]), metrics)


def is_smaller_better(metric: str) -> bool:
    """Whether smaller values of ``metric`` are better: those of losses, by their names."""
    return "loss" in metric.lower()


def best_evaluation(evaluations: Iterable[Evaluation], metric: str) -> Evaluation | None:
    """The evaluation with the best finite value of ``metric``, the first of several; or None."""
    sign = -1.0 if is_smaller_better(metric) else 1.0
    best, best_value = None, -math.inf
    for evaluation in evaluations:
        value = sign * evaluation.metrics.get(metric, math.nan)
        if math.isfinite(value) and value > best_value:
            best, best_value = evaluation, value
    return best


def evaluations_since_best(evaluations: Sequence[Evaluation], metric: str) -> int:
    """How many evaluations came after the best one; all of them if none was finite."""
    best = best_evaluation(evaluations, metric)
    return len(evaluations) if best is None else len(evaluations) - 1 - evaluations.index(best)


def headline(metrics: Mapping[str, float]) -> str:
    """The main results in one line, such as ``bbox/AP 31.2  bbox/AP50 50.1``.

    Args:
        metrics: by full name; those whose last part is in :data:`HEADLINE` are taken, or the first
            :data:`MAX_NAMES` where none is.
    """
    main = [name for name in metrics if name.rpartition("/")[2] in HEADLINE] or list(metrics)
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in main[:MAX_NAMES])


def missing_metric(metric: str, known: Iterable[str]) -> str:
    """A sentence about a ``metric`` that no result has, with the names that there are."""
    names = list(known)
    nearest = difflib.get_close_matches(metric, names, n=MAX_NAMES, cutoff=0.3)
    # With several test sets, "bbox/AP" is close to few letters of "coco_2017_val/bbox/AP".
    ending = [name for name in names if name.endswith(f"/{metric}")]
    first = list(dict.fromkeys([*ending, *nearest, *names]))[:MAX_NAMES]
    more = f" and {len(names) - len(first)} more" if len(names) > len(first) else ""
    return (
        f"TEST.BEST_METRIC is '{metric}', which the evaluation does not give; it gives "
        f"{', '.join(first)}{more}"
    )
