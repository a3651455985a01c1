"""From a data set and a machine to a whole config: every choice, in the order of dependence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from detectron2.config import CfgNode

from ..config import validate_cfg
from ..errors import InputError, count
from .anchors import choose_anchors
from .augment import choose_augmentation, choose_flips
from .choice import Choice
from .draft import Draft
from .facts import DataFacts, Machine
from .length import MINUTES, Pace, Plan, choose_average, plan_epochs, plan_seconds
from .network import batch_norm, choose_network
from .pictures import choose_size, size_of, smaller
from .steps import choose_batch, choose_optimizer

__all__ = ["PRESETS", "Wishes", "choose_recipe"]

logger = logging.getLogger(__name__)

PRESETS = ("fast", "balanced", "accurate")
FEWEST_EPOCHS = 6.0  # below which smaller pictures are worth more than large ones
GUESSED_ITERATIONS = 1000  # for what depends on the length before that is known
MANY_OBJECTS = 50  # of a picture; more than 100 detections are then kept

Measure = Callable[[CfgNode, float, int], Pace]


@dataclass(frozen=True)
class Wishes:
    """What the user asked for: minutes or epochs (None: the default minutes), and a preset."""

    minutes: float | None = None
    epochs: float | None = None
    preset: str = "balanced"


def choose_recipe(
    draft: Draft,
    data: DataFacts,
    machine: Machine,
    wishes: Wishes,
    measure: Measure,
    spent: Callable[[], float] = time.monotonic,
) -> None:
    """Make all choices in ``draft``.

    Args:
        draft: the defaults and the user's keys; its datasets are registered.
        data, machine: what the choices are made from.
        wishes: of the user.
        measure: trains a little, see :func:`.pace.measure_pace`.
        spent: seconds since the command began.

    Raises:
        InputError: two wishes contradict, or the time is too short.
    """
    cfg, preset = draft.cfg, wishes.preset
    weights = draft.cfg.MODEL.WEIGHTS if "MODEL.WEIGHTS" in draft.given else None
    draft.take(choose_network(machine, preset, weights))
    draft.take(_size(draft, choose_size(data, machine.device, preset), data))
    _take_steps(draft, data, machine)
    draft.take(choose_flips(data.class_names))
    draft.take(choose_augmentation(data, cfg.INPUT.MIN_SIZE_TEST, preset))
    if crowded := _crowded(data):
        draft.take(crowded)
    draft.take(Choice("seed", "1", "the same command gives the same run", {"SEED": 1}))
    draft.take(choose_average(GUESSED_ITERATIONS, bool(data.val_images)))
    validate_cfg(cfg)
    draft.take(choose_anchors(cfg, data))
    _take_length(draft, data, machine, wishes, measure, spent)
    draft.take(choose_average(cfg.SOLVER.MAX_ITER, bool(data.val_images)))
    draft.show_rest()
    validate_cfg(cfg)


def _size(draft: Draft, found: Choice, data: DataFacts) -> Choice:
    """``found``, or what follows from the sizes that the user has set."""
    node = draft.cfg.INPUT
    own = {x: f"INPUT.{x}" in draft.given for x in ("MIN_SIZE_TEST", "MIN_SIZE_TRAIN")}
    if not any(own.values()):
        return found
    short = node.MIN_SIZE_TEST if own["MIN_SIZE_TEST"] else found.keys["INPUT.MIN_SIZE_TEST"]
    if own["MIN_SIZE_TRAIN"]:
        return size_of(short, data, "the long sides follow", list(node.MIN_SIZE_TRAIN))
    return size_of(short, data, "the others follow")


def _take_steps(draft: Draft, data: DataFacts, machine: Machine) -> None:
    """Batch, norm and learning rate."""
    cfg = draft.cfg
    short, long = max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN
    pixels = short * min(long, round(short * data.aspect))
    has_weights = bool(cfg.MODEL.WEIGHTS)
    draft.take(choose_batch(machine, _is_large(cfg), has_weights, pixels, data.images))
    _follow_batch(draft, machine)


def _follow_batch(draft: Draft, machine: Machine) -> None:
    cfg = draft.cfg
    batch, weights = cfg.SOLVER.IMS_PER_BATCH, cfg.MODEL.WEIGHTS
    draft.take(batch_norm(cfg.MODEL.BACKBONE.NAME, weights, batch // machine.gpus))
    draft.take(choose_optimizer(_is_large(cfg), bool(weights), batch))


def _is_large(cfg: CfgNode) -> bool:
    """Whether it is the network of the paper, not a small one for CPUs."""
    return cfg.MODEL.FPN.OUT_CHANNELS > 128


def _crowded(data: DataFacts) -> Choice | None:
    most = data.most_objects
    if most <= MANY_OBJECTS:
        return None
    kept = min(1000, 2 * most)
    reason = f"a picture has up to {most} objects"
    return Choice("detections", f"{kept} per picture", reason, {"TEST.DETECTIONS_PER_IMAGE": kept})


def _take_length(
    draft: Draft,
    data: DataFacts,
    machine: Machine,
    wishes: Wishes,
    measure: Measure,
    spent: Callable[[], float],
) -> None:
    """Iterations and evaluations, by the user's keys, by epochs or by measured steps."""
    solver = draft.cfg.SOLVER
    if wishes.minutes is not None and wishes.epochs is not None:
        raise InputError("--minutes and --epochs are both there; give one of them")
    if "SOLVER.EPOCHS" in draft.given:
        raise InputError("SOLVER.EPOCHS is set; without a config, the length is --epochs N")
    if "SOLVER.MAX_ITER" in draft.given:
        plan = plan_epochs(solver.MAX_ITER, 1, 1)
        _take_plan(draft, data, plan, "yours")
    elif wishes.epochs is not None:
        plan = plan_epochs(wishes.epochs, data.images, solver.IMS_PER_BATCH)
        _take_plan(draft, data, plan, f"--epochs {wishes.epochs:g}")
    else:
        minutes = wishes.minutes if wishes.minutes is not None else MINUTES[machine.device]
        _fit_into(draft, data, machine, 60 * minutes, wishes.preset, measure, spent)


def _fit_into(
    draft: Draft,
    data: DataFacts,
    machine: Machine,
    budget: float,
    preset: str,
    measure: Measure,
    spent: Callable[[], float],
) -> None:
    """Measure, with smaller batches where the memory ends and smaller pictures where time does."""
    while True:
        pace = _measure_in_memory(draft, data, machine, budget, measure)
        pace = replace(pace, spent=spent())
        plan = plan_seconds(budget, pace)
        epochs = plan.iterations * draft.cfg.SOLVER.IMS_PER_BATCH / data.images
        again = smaller(draft.cfg.INPUT.MIN_SIZE_TEST, data, epochs)
        is_free = not draft.given & {"INPUT.MIN_SIZE_TEST", "INPUT.MIN_SIZE_TRAIN"}
        if epochs >= FEWEST_EPOCHS or again is None or not is_free or machine.device == "cuda":
            break
        draft.take(again)
        draft.take(choose_augmentation(data, draft.cfg.INPUT.MIN_SIZE_TEST, preset))
        draft.take(choose_anchors(draft.cfg, data))
    reason = (
        f"{budget / 60:g} minutes at {pace.step:.2g} s a step, {pace.evaluation:.2g} s to evaluate"
    )
    _take_plan(draft, data, plan, reason)


def _measure_in_memory(
    draft: Draft, data: DataFacts, machine: Machine, budget: float, measure: Measure
) -> Pace:
    while True:
        try:
            return measure(draft.cfg, budget, data.val_images)
        except torch.OutOfMemoryError:
            batch = draft.cfg.SOLVER.IMS_PER_BATCH
            if batch <= machine.gpus or "SOLVER.IMS_PER_BATCH" in draft.given:
                raise InputError(
                    f"the memory is too small for {batch} pictures of "
                    f"{draft.cfg.INPUT.MIN_SIZE_TEST} px; try --preset fast, or smaller "
                    "INPUT.MIN_SIZE_TRAIN and INPUT.MIN_SIZE_TEST"
                ) from None
        torch.cuda.empty_cache()
        half = Choice(
            "batch",
            f"{batch // 2} pictures",
            f"{batch} did not fit into the memory",
            {"SOLVER.IMS_PER_BATCH": batch // 2},
        )
        draft.take(half)
        _follow_batch(draft, machine)


def _take_plan(draft: Draft, data: DataFacts, plan: Plan, reason: str) -> None:
    batch = draft.cfg.SOLVER.IMS_PER_BATCH
    epochs = plan.iterations * batch / data.images
    keys = plan.keys()
    evaluations = {"TEST.EVAL_PERIOD": keys.pop("TEST.EVAL_PERIOD")}
    value = f"{count(plan.iterations, 'iteration')}, {epochs:.1f} times {data.images} pictures"
    draft.take(Choice("length", value, reason, keys))
    if data.val_images:
        times = f"{count(plan.evaluations, 'time')}, each {count(plan.period, 'iteration')}"
        reason = count(data.val_images, "picture")
        draft.take(Choice("evaluation", times, reason, evaluations))
    else:
        reason = "there is no picture to validate on"
        draft.take(Choice("evaluation", "none", reason, {"TEST.EVAL_PERIOD": 0}))
