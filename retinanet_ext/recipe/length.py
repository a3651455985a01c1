"""How long training takes: from seconds, or epochs, to iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .choice import Choice

__all__ = ["MINUTES", "Pace", "Plan", "choose_average", "plan_epochs", "plan_seconds"]

MINUTES = {"cpu": 15.0, "mps": 15.0, "cuda": 60.0}
EVALUATIONS = 10
MOST_EVALUATING = 0.1  # share of the time that evaluations may take, but for the last two
RESERVE = 0.97  # of the time left, against what is a little slower than measured
LEAST_ITERATIONS = 20


@dataclass(frozen=True)
class Pace:
    """Seconds that were measured.

    Attributes:
        step: of one iteration.
        evaluation: of all validation pictures, whatever is evaluated of them.
        spent: since the command began.
        setup: until the first step, once more.
        end: after the last evaluation.
    """

    step: float
    evaluation: float = 0.0
    spent: float = 0.0
    setup: float = 0.0
    end: float = 0.0

    def seconds(self, iterations: int, evaluations: int) -> float:
        """Of the whole command."""
        around = self.spent + self.setup + self.end
        return around + iterations * self.step + evaluations * self.evaluation


@dataclass(frozen=True)
class Plan:
    """Iterations, and those between two evaluations; 0 is only after the last."""

    iterations: int
    period: int

    @property
    def evaluations(self) -> int:
        """How many there will be, the last one included."""
        return math.ceil(self.iterations / self.period) if self.period else 1

    def keys(self) -> dict[str, Any]:
        """As config keys."""
        return {
            "SOLVER.MAX_ITER": self.iterations,
            "TEST.EVAL_PERIOD": self.period,
            "SOLVER.CHECKPOINT_PERIOD": self.period or max(1, self.iterations // 10),
            "SOLVER.CHECKPOINTS_KEPT": 2,
        }


def plan_seconds(budget: float, pace: Pace) -> Plan:
    """As many iterations as fit between start and end, with an evaluation each tenth.

    Where ten evaluations would take more than 10 % of the time there are fewer, but two.

    Args:
        budget: seconds of the whole command.
        pace: what was measured.

    Raises:
        InputError: there is no time for twenty iterations.
    """
    left = (budget - pace.spent - pace.setup - pace.end) * RESERVE
    evaluations = EVALUATIONS
    if pace.evaluation > 0:
        evaluations = min(EVALUATIONS, int(MOST_EVALUATING * left / pace.evaluation))
    evaluations = max(2, evaluations)
    iterations = int((left - evaluations * pace.evaluation) / pace.step)
    if iterations < LEAST_ITERATIONS:
        needed = pace.seconds(LEAST_ITERATIONS, 2) / RESERVE
        raise InputError(
            f"--minutes {budget / 60:g} is too short: start, evaluations and {LEAST_ITERATIONS} "
            f"iterations of {pace.step:.2g} s take {needed / 60:.1f}; give more, or --preset fast"
        )
    return Plan(iterations, math.ceil(iterations / evaluations))


def plan_epochs(epochs: float, images: int, batch: int) -> Plan:
    """``epochs`` times all pictures, with an evaluation each tenth."""
    iterations = max(1, math.ceil(epochs * images / batch))
    return Plan(iterations, max(1, math.ceil(iterations / EVALUATIONS)))


def choose_average(iterations: int, has_val: bool) -> Choice:
    """An average over the last twentieth of the weights; the better of both is kept."""
    decay = min(0.9998, max(0.9, 1 - 20 / max(iterations, 1)))
    decay = float(f"{decay:.4f}")
    keys: dict[str, Any] = {"SOLVER.EMA.ENABLED": True, "SOLVER.EMA.DECAY": decay}
    if has_val:
        keys["TEST.BEST_METRIC"] = "ema/bbox/AP"
    return Choice(
        "average of weights",
        f"EMA of decay {decay:g}",
        f"over about {1 / (1 - decay):.0f} of {iterations} iterations; the best by AP is kept",
        keys,
    )
