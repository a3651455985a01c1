"""Schedules in epochs, and the learning rate of a batch size: both become what Detectron2 reads."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.data import get_detection_dataset_dicts

from ...config.epochs import ITERATION_KEYS, counts_epochs, epoch_settings
from ...config.solver_rules import check_iterations
from ...errors import InputError
from ..launch.main_process import on_main_process

logger = logging.getLogger(__name__)


def resolve_schedule(cfg: CfgNode) -> None:
    """Turn lengths in epochs into iterations, and fit the learning rate to the batch.

    Raises:
        ValueError: a length is given twice, or the lengths do not fit together.
    """
    if counts_epochs(cfg):
        resolve_epochs(cfg, on_main_process(lambda: count_training_images(cfg)))
    scale_learning_rate(cfg)


def count_training_images(cfg: CfgNode) -> int:
    """Images of an epoch: those of ``DATASETS.TRAIN`` that the training loader keeps.

    Images without objects are left out with ``DATALOADER.FILTER_EMPTY_ANNOTATIONS``; those that a
    repeat-factor sampler repeats count once. It reads all annotations, so call it in one process.

    Raises:
        ValueError: no training dataset is named, or its length is not known.
    """
    loader = cfg.DATALOADER
    if not cfg.DATASETS.TRAIN:
        raise InputError(
            f"SOLVER.EPOCHS is {cfg.SOLVER.EPOCHS} but DATASETS.TRAIN is empty, so an epoch has "
            "no length; name a dataset"
        )
    dataset = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=loader.FILTER_EMPTY_ANNOTATIONS,
        check_consistency=False,  # logs a table, as the training loader will
    )
    try:
        num_images = len(dataset)
    except TypeError:
        raise InputError(
            f"SOLVER.EPOCHS is {cfg.SOLVER.EPOCHS} but the length of DATASETS.TRAIN "
            f"{tuple(cfg.DATASETS.TRAIN)} is not known; set SOLVER.MAX_ITER instead"
        ) from None
    if loader.SAMPLER_TRAIN == "RandomSubsetTrainingSampler":
        num_images = int(num_images * loader.RANDOM_SUBSET_RATIO)
    return num_images


def resolve_epochs(cfg: CfgNode, num_images: int) -> None:
    """Write the lengths that ``cfg`` gives in epochs into the keys in iterations, in place.

    An epoch is ``num_images / SOLVER.IMS_PER_BATCH`` iterations, not rounded; each length is
    rounded up. What is not given in epochs keeps its iterations, except for ``SOLVER.STEPS`` at
    Detectron2's default, which becomes (). Nothing changes where ``SOLVER.EPOCHS`` is not set, nor
    by a second call. Call it before ``REFERENCE_WORLD_SIZE`` scales batch and iterations alike.

    Args:
        cfg: a valid config, not frozen.
        num_images: images of an epoch, see :func:`count_training_images`.

    Raises:
        ValueError: a length is also given in iterations, and differs; or the lengths do not fit
            together.
    """
    if not counts_epochs(cfg):
        return
    if num_images < 1:
        raise InputError(
            f"DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)} has {num_images} images to train on, so "
            f"SOLVER.EPOCHS {cfg.SOLVER.EPOCHS} have no length"
        )
    defaults, solver = get_detectron2_cfg(), cfg.SOLVER
    to_iterations = _converter(Fraction(num_images, solver.IMS_PER_BATCH))
    resolved: dict[str, Any] = {}
    conflicts = []
    for key, value in epoch_settings(cfg).items():
        target = ITERATION_KEYS[key]
        resolved[target] = to_iterations(value)
        given = _get(cfg, target)
        # 0 and () are how to take back what a _BASE_ file sets; the result is what the config that
        # an earlier run has saved holds.
        if given and given not in (_get(defaults, target), resolved[target]):
            conflicts.append(f"{key} {value} makes {target} {resolved[target]}, but it is {given}")
    if conflicts:
        raise InputError(
            f"{'; '.join(conflicts)}. Remove one of the two; where a _BASE_ file sets the "
            "iterations, set them to 0, or STEPS to ()"
        )
    if defaults.SOLVER.STEPS == solver.STEPS:
        resolved.setdefault("SOLVER.STEPS", ())
    for target, iterations in resolved.items():
        section, name = target.split(".")
        cfg[section][name] = iterations
    # A warm-up that nobody set for this schedule; Detectron2 has no epochs, and no file with both.
    for warning in check_iterations(cfg):
        raise InputError(warning)
    _log_epochs(cfg, num_images)


def scale_learning_rate(cfg: CfgNode) -> None:
    """Scale the learning rate from ``SOLVER.BASE_LR_BATCH`` to ``IMS_PER_BATCH``, in place.

    The linear scaling rule (Goyal et al., arXiv 1706.02677, Sec. 2.1), found for SGD: a batch k
    times as large takes k times the learning rate. ``BASE_LR`` and ``BASE_LR_END`` are multiplied,
    and ``BASE_LR_BATCH`` becomes ``IMS_PER_BATCH``, for which the result is meant; so a second
    call, or the config that a run has saved, changes nothing.

    Args:
        cfg: a valid config, not frozen.
    """
    solver = cfg.SOLVER
    meant_for, batch, base_lr = solver.BASE_LR_BATCH, solver.IMS_PER_BATCH, solver.BASE_LR
    if not meant_for or meant_for == batch:
        return
    solver.BASE_LR = base_lr * batch / meant_for
    solver.BASE_LR_END = solver.BASE_LR_END * batch / meant_for
    solver.BASE_LR_BATCH = batch
    logger.info(
        "learning rate %g for batches of %d, times %d/%d by the linear scaling rule "
        "(arXiv 1706.02677): BASE_LR %g",
        base_lr,
        meant_for,
        batch,
        meant_for,
        solver.BASE_LR,
    )


def _converter(iterations_per_epoch: Fraction) -> Callable[[Any], Any]:
    """From epochs, a number or several, to iterations."""

    def convert(epochs: Any) -> Any:
        if isinstance(epochs, (list, tuple)):
            return tuple(convert(x) for x in epochs)
        # The decimal number that was written: 0.1 as a float is a little more than a tenth.
        return math.ceil(Fraction(str(epochs)) * iterations_per_epoch)

    return convert


def _get(cfg: CfgNode, key: str) -> Any:
    section, name = key.split(".")
    value = cfg[section][name]
    return tuple(value) if isinstance(value, list) else value


def _log_epochs(cfg: CfgNode, num_images: int) -> None:
    solver = cfg.SOLVER
    parts = []
    if solver.LR_SCHEDULER_NAME != "OneCycleLR":
        parts.append(f"warm-up {solver.WARMUP_ITERS}")
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        parts.append(f"steps at {', '.join(map(str, solver.STEPS)) or 'none'}")
    parts.append(f"checkpoint every {solver.CHECKPOINT_PERIOD}")
    every = f"every {cfg.TEST.EVAL_PERIOD}" if cfg.TEST.EVAL_PERIOD else "at the end"
    logger.info(
        "%s epochs of %d images in batches of %d: %d iterations, %.1f per epoch; %s, evaluation %s",
        solver.EPOCHS,
        num_images,
        solver.IMS_PER_BATCH,
        solver.MAX_ITER,
        num_images / solver.IMS_PER_BATCH,
        ", ".join(parts),
        every,
    )
