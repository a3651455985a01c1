"""Schedules in epochs: which keys there are, and checks of them that need no dataset."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from ..errors import InputError

ITERATION_KEYS = {
    "SOLVER.EPOCHS": "SOLVER.MAX_ITER",
    "SOLVER.STEPS_EPOCHS": "SOLVER.STEPS",
    "SOLVER.WARMUP_EPOCHS": "SOLVER.WARMUP_ITERS",
    "SOLVER.CHECKPOINT_EPOCHS": "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_EPOCHS": "TEST.EVAL_PERIOD",
}
"""Key in epochs -> the key in iterations that it stands for."""


def counts_epochs(cfg: CfgNode) -> bool:
    """Whether the length of training is given in epochs."""
    return bool(cfg.SOLVER.EPOCHS)


def epoch_settings(cfg: CfgNode) -> dict[str, Any]:
    """The keys of :data:`ITERATION_KEYS` that are set, which are not None, 0 or empty."""
    settings = {}
    for key in ITERATION_KEYS:
        section, name = key.split(".")
        if cfg[section][name]:
            settings[key] = cfg[section][name]
    return settings


def check_epochs(cfg: CfgNode) -> None:
    """Raise on lengths in epochs that would be ignored or cannot work.

    Raises:
        InputError: the key, its value, and the fix.
    """
    settings, solver = epoch_settings(cfg), cfg.SOLVER
    for key, value in settings.items():
        numbers = value if key == "SOLVER.STEPS_EPOCHS" else [value]
        if not isinstance(numbers, (list, tuple)) or not all(map(_is_positive, numbers)):
            kind = "a tuple of positive numbers" if numbers is value else "a positive number"
            raise InputError(f"{key} is {value!r}; set it to {kind} of epochs")
    if not settings:
        return
    _reject_ignored(settings, solver.LR_SCHEDULER_NAME)
    epochs, steps = solver.EPOCHS, list(solver.STEPS_EPOCHS)
    if steps != sorted(steps) or any(step >= epochs for step in steps):
        raise InputError(
            f"SOLVER.STEPS_EPOCHS is {tuple(steps)} with SOLVER.EPOCHS {epochs}: steps must rise "
            "and lie below EPOCHS, else those decays never happen"
        )
    if (solver.WARMUP_EPOCHS or 0) >= epochs:
        raise InputError(
            f"SOLVER.WARMUP_EPOCHS is {solver.WARMUP_EPOCHS} with SOLVER.EPOCHS {epochs}, so the "
            "learning rate would never reach BASE_LR; set WARMUP_EPOCHS to a tenth of EPOCHS or "
            "less"
        )


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 < value < float("inf")


def _reject_ignored(settings: dict[str, Any], schedule: str) -> None:
    if "SOLVER.EPOCHS" not in settings:
        key, value = next(iter(settings.items()))
        raise InputError(
            f"{key} is {value!r}, but SOLVER.EPOCHS is not set, so lengths are counted in "
            f"iterations; set SOLVER.EPOCHS, or {ITERATION_KEYS[key]} instead of {key}"
        )
    if "SOLVER.STEPS_EPOCHS" in settings and schedule != "WarmupMultiStepLR":
        raise InputError(
            f"SOLVER.STEPS_EPOCHS is {settings['SOLVER.STEPS_EPOCHS']!r}, but {schedule} does not "
            "read it; set SOLVER.LR_SCHEDULER_NAME to WarmupMultiStepLR, or remove it"
        )
    if "SOLVER.WARMUP_EPOCHS" in settings and schedule == "OneCycleLR":
        raise InputError(
            f"SOLVER.WARMUP_EPOCHS is {settings['SOLVER.WARMUP_EPOCHS']!r}, but OneCycleLR does "
            "not read it; set SOLVER.ONE_CYCLE_PCT_START"
        )
