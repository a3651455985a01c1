"""Rules on the course of the training, and on how sure the numbers are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ....errors import listed
from . import limits
from .numbers import Advice, Numbers, curve, lines

__all__ = [
    "few_objects",
    "hardly_learned",
    "past_best",
    "still_rising",
    "unsure_comparison",
    "weak_classes",
    "wide_interval",
]


def hardly_learned(numbers: Numbers) -> Advice | None:
    """Next to nothing is found."""
    ap50 = numbers.number("summary", "AP50")
    if ap50 is None or ap50 >= limits.HARDLY or numbers.num_objects < limits.FEW:
        return None
    return Advice(
        "hardly_learned",
        f"AP50 is {ap50:.1f}: the model has hardly learned to find these objects.",
        "Look whether the boxes lie on the objects and the classes are right, in the picture that "
        "the second command writes; then train longer.",
        lines(
            numbers.command("check-data", "--config-file", numbers.config, "--images"),
            numbers.command(
                "show-data", "--config-file", numbers.config, "--output", "training.jpg"
            ),
        ),
        1.0,
    )


def still_rising(numbers: Numbers) -> Advice | None:
    """AP rose, or the loss on the validation set fell, until the end."""
    rise, since = _change(_evaluations(numbers, "AP"))
    loss, loss_since = _change(_evaluations(numbers, "total"), falling=True)
    if rise >= limits.RISE:
        finding = f"AP rose by {rise:.1f} points since iteration {since:,.0f}, to the end."
        weight = rise / 100
    elif loss >= limits.FALL:
        finding = f"The validation loss fell by {loss:.0%} since iteration {loss_since:,.0f}."
        weight = limits.RISE / 100
    else:
        return None
    iterations = numbers.model("max_iter")
    command = None
    if iterations:
        keys: list[object] = ["SOLVER.MAX_ITER", int(iterations) * 2]
        steps = numbers.model("steps")
        if steps:
            keys += ["SOLVER.STEPS", str(tuple(int(step) * 2 for step in steps))]
        command = numbers.train("longer", *keys)
    return Advice("still_rising", finding, "Train longer.", command, weight)


def past_best(numbers: Numbers) -> Advice | None:
    """The last evaluation is worse than an earlier one."""
    points = _evaluations(numbers, "AP")
    if len(points) < 3:
        return None
    iteration, best = max(points, key=lambda point: point[1])
    lost = best - points[-1][1]
    if lost < limits.PAST_BEST:
        return None
    command = None
    if numbers.model("keeps_best"):
        words = (numbers.run, "PICTURES", "--weights", "best", "--output", "found")
        command = numbers.command("predict", *words)
    return Advice(
        "past_best",
        f"AP was best at iteration {iteration:,.0f} ({best:.1f}) and is {lost:.1f} points lower at "
        "the end.",
        "Use the model of that evaluation; or train shorter, on more pictures, or with more "
        "augmentation.",
        command,
        lost / 100,
    )


def weak_classes(numbers: Numbers) -> Advice | None:
    """Some classes are far behind the others."""
    rows = {
        name: float(row["AP"])
        for name, row in numbers.classes.items()
        if row.get("AP") is not None and row["n"] >= limits.FEW_OBJECTS
    }
    if len(rows) < 3:
        return None
    median = statistics.median(rows.values())
    weak = sorted((ap, name) for name, ap in rows.items() if ap < limits.WEAK * median)
    if not weak or median < limits.HARDLY:
        return None
    names = listed([f"'{name}' ({ap:.1f})" for ap, name in weak], 5)
    return Advice(
        "weak_classes",
        f"AP of {names} is less than half of what it is in the middle of the classes "
        f"({median:.1f}).",
        "These classes need more pictures in the training set, or clearer labels. Where they are "
        "rare, training can draw them more often.",
        numbers.train(
            "balanced",
            *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
            *("DATALOADER.REPEAT_THRESHOLD", 0.1),
        ),
        sum(median - ap for ap, _ in weak) / len(rows) / 100,
    )


def few_objects(numbers: Numbers) -> Advice | None:
    """The set is too small for its numbers to be relied on."""
    if not numbers.num_objects:
        return None
    few = [name for name, row in numbers.classes.items() if row["n"] < limits.FEW_OBJECTS]
    if numbers.num_objects >= limits.FEW_IN_ALL and not few:
        return None
    if few:
        finding = (
            f"{len(few)} of {len(numbers.classes)} classes have fewer than {limits.FEW_OBJECTS} "
            f"objects here, such as '{few[0]}': their numbers are mostly chance."
        )
    else:
        finding = (
            f"There are {numbers.num_objects:,} objects: differences of a few points are chance."
        )
    return Advice(
        "few_objects",
        finding,
        "Judge by more labelled pictures before you choose between models or thresholds.",
    )


def wide_interval(numbers: Numbers) -> Advice | None:
    """AP would be another one on other pictures."""
    low, high = (numbers.number("intervals", "AP", key) for key in ("low", "high"))
    if low is None or high is None or (high - low) / 2 < limits.WIDE:
        return None
    return Advice(
        "wide_interval",
        f"AP lies between {low:.1f} and {high:.1f} with a confidence of 95 %.",
        "More labelled pictures for validation make it surer; a smaller difference than that "
        "between two models says nothing.",
    )


def unsure_comparison(numbers: Numbers) -> Advice | None:
    """The difference to the other run may be chance."""
    delta, low, high = (numbers.number("compare", "AP", key) for key in ("delta", "low", "high"))
    if delta is None or low is None or high is None or not low <= 0 <= high or low == high:
        return None
    return Advice(
        "unsure_comparison",
        f"The difference to the other model, {delta:+.1f} points of AP, may be chance: it lies "
        f"between {low:+.1f} and {high:+.1f}.",
        "Compare on more pictures, and train both with two or three seeds (SEED).",
    )


def _evaluations(numbers: Numbers, metric: str) -> Sequence[tuple[float, float]]:
    """The curve of a metric of the first data set that has it."""
    curves = numbers.get("training", "evaluations") or {}
    for name in sorted(curves, key=len):
        if name.rpartition("/")[2] == metric:
            return curve(curves[name])
    return ()


def _change(points: Sequence[tuple[float, float]], falling: bool = False) -> tuple[float, float]:
    """Rise, or relative fall, since three quarters of the training, and where that is.

    0 where there are fewer than three evaluations, or where the last one is not the best.
    """
    if len(points) < 3:
        return 0.0, 0.0
    last = points[-1][1]
    best = min(points, key=lambda x: x[1])[1] if falling else max(points, key=lambda x: x[1])[1]
    if last != best:
        return 0.0, 0.0
    before = [point for point in points[:-1] if point[0] <= 0.75 * points[-1][0]] or [points[0]]
    iteration, value = before[-1]
    if falling:
        return ((value - last) / value if value > 0 else 0.0), iteration
    return last - value, iteration
