"""What to try next: rules on the numbers of a report, each with its limit in :mod:`.limits`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import of_errors, of_misses, of_training
from .numbers import RUN, Advice, Numbers
from .settings import model_settings

__all__ = ["RULES", "RUN", "Advice", "model_settings", "what_to_try"]

RULES: tuple[Callable[[Numbers], Advice | None], ...] = (
    of_training.hardly_learned,
    of_misses.missing_anchors,
    of_misses.unseen,
    of_misses.unsure,
    of_misses.topk,
    of_misses.above_cap,
    of_misses.crowding,
    of_misses.suppressed,
    of_errors.missing_labels,
    of_errors.confused_classes,
    of_errors.loose_boxes,
    of_errors.background,
    of_errors.duplicates,
    of_errors.large_boxes,
    of_errors.small_objects,
    of_training.still_rising,
    of_training.past_best,
    of_training.weak_classes,
    of_training.few_objects,
    of_training.wide_interval,
    of_training.unsure_comparison,
)


def what_to_try(report: Mapping[str, Any]) -> list[Advice]:
    """The advice that a report's numbers give, from what concerns most objects on.

    A rule about what the report lacks says nothing, so that any part of these keys will do:
    ``summary``, ``settings``, ``classes``, ``errors`` and ``confusion`` of an analysis,
    ``most_confused``, ``recall_grid``, ``intervals``, ``compare``, ``run`` and ``training`` of the
    page, and of this folder ``missed`` (:class:`.Misses`), ``missing_labels`` or
    ``possible_labels.count``, ``large_boxes`` (:func:`.count_large_boxes`) and ``model``
    (:func:`model_settings`). ``run.folder`` names the OUTPUT_DIR in commands; else they say RUN.

    Args:
        report: what becomes report.json; numbers that are not known are None or NaN.
    """
    numbers = Numbers(report)
    found = [advice for rule in RULES if (advice := rule(numbers)) is not None]
    return sorted(found, key=lambda advice: -advice.weight)  # stable
