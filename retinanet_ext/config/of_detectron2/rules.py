"""Rules for lists among Detectron2's keys, and between several of its keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg
from PIL import ImageMode

from ...errors import InputError, did_you_mean
from ..keys import differ, find

__all__ = ["check_detectron2_rules"]

# Channels of what Detectron2 reads beside the modes of Pillow.
_FORMATS = {"BGR": 3, "RGB": 3, "L": 1, "YUV-BT.601": 3}


def check_detectron2_rules(cfg: CfgNode) -> list[str]:
    """Raise on values of Detectron2's keys that cannot work, each with its key and the fix.

    Returns:
        Warnings: settings of a crop that is not done.

    Raises:
        InputError: names the key, its value and what it may be.
    """
    _check_pixels(cfg)
    _check_anchors(cfg)
    _check_levels(cfg)
    _check_box_weights(cfg)
    _check_sizes(cfg)
    _check_crop(cfg.INPUT.CROP)
    _check_sampler(cfg)
    _check_optimizer(cfg.SOLVER)
    _check_deformable(cfg.MODEL.RESNETS)
    _check_expected_results(cfg)
    if cfg.VERSION != 2:
        raise InputError(
            f"VERSION is {cfg.VERSION}, but the keys are those of version 2; convert the config "
            "with detectron2.config.upgrade_config, or set VERSION to 2 if its keys are new"
        )
    return _unread_crop(cfg)


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def _refuse_unless(name: str, values: Any, fits: Callable[[Any], bool], what: str) -> None:
    """Raise InputError unless ``values`` is a list that is not empty, of what ``fits``."""
    listed = isinstance(values, (list, tuple)) and len(values) > 0
    if not listed or not all(fits(value) for value in values):
        raise InputError(f"{name} is {values!r}; set it to {what}")


def _check_pixels(cfg: CfgNode) -> None:
    mean, std, name = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, cfg.INPUT.FORMAT
    _refuse_unless("MODEL.PIXEL_MEAN", mean, _is_number, "one number for each channel")
    _refuse_unless(
        "MODEL.PIXEL_STD",
        std,
        lambda x: _is_number(x) and x > 0,
        "one positive number for each channel; pixels are divided by it",
    )
    if name not in _FORMATS:
        try:
            channels = len(ImageMode.getmode(name).bands)
        except KeyError:
            raise InputError(
                f"INPUT.FORMAT is '{name}'; set it to one of {', '.join(_FORMATS)}, or another "
                f"mode of Pillow's.{did_you_mean(name, _FORMATS)}"
            ) from None
    else:
        channels = _FORMATS[name]
    for key, values in (("PIXEL_MEAN", mean), ("PIXEL_STD", std)):
        if len(values) != channels:
            raise InputError(
                f"MODEL.{key} is {list(values)}, but INPUT.FORMAT is '{name}', which has "
                f"{channels} channel(s); give one number for each"
            )


def _check_anchors(cfg: CfgNode) -> None:
    node = cfg.MODEL.ANCHOR_GENERATOR
    for key, what in (("SIZES", "sizes in pixels"), ("ASPECT_RATIOS", "heights over widths")):
        _refuse_unless(
            f"MODEL.ANCHOR_GENERATOR.{key}",
            node[key],
            _are_positive,
            f"a list of lists of {what}, positive numbers: one list for all levels, or one for "
            "each, none of them empty",
        )


def _are_positive(value: Any) -> bool:
    """Whether ``value`` is a positive number or a list of some, none of which is nested."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return len(values) > 0 and all(_is_number(x) and x > 0 for x in values)


def _check_levels(cfg: CfgNode) -> None:
    for key in ("MODEL.RETINANET.IN_FEATURES", "MODEL.FPN.IN_FEATURES"):
        names = find(cfg, key)
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"{key} is {names!r}; set it to names of features, such as 'p3'")
        if len(set(names)) < len(names):
            raise InputError(f"{key} is {names!r}, which names one twice; keep one of them")


def _check_box_weights(cfg: CfgNode) -> None:
    weights = cfg.MODEL.RETINANET.BBOX_REG_WEIGHTS
    what = "four positive numbers, for dx, dy, dw and dh"
    _refuse_unless(
        "MODEL.RETINANET.BBOX_REG_WEIGHTS", weights, lambda x: _is_number(x) and x > 0, what
    )
    if len(weights) != 4:
        raise InputError(f"MODEL.RETINANET.BBOX_REG_WEIGHTS is {weights!r}; set it to {what}")


def _check_sizes(cfg: CfgNode) -> None:
    node = cfg.INPUT
    sizes = node.MIN_SIZE_TRAIN
    sizes = sizes if isinstance(sizes, (list, tuple)) else (sizes,)
    _refuse_unless(
        "INPUT.MIN_SIZE_TRAIN",
        sizes,
        lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= 0,
        "a tuple of the shortest sides to resize images to, in pixels, such as (640, 800)",
    )
    for split, smallest in (("TRAIN", min(sizes)), ("TEST", node.MIN_SIZE_TEST)):
        longest = node[f"MAX_SIZE_{split}"]
        if longest < smallest:
            raise InputError(
                f"INPUT.MAX_SIZE_{split} is {longest}, the most that the longest side of an image "
                f"may have, but INPUT.MIN_SIZE_{split} asks for {smallest} on the shortest, which "
                f"no image could get; set MAX_SIZE_{split} to {smallest} or more"
            )


def _check_crop(node: CfgNode) -> None:
    if not node.ENABLED:
        return
    size, absolute = node.SIZE, str(node.TYPE).startswith("absolute")

    def fits(value: Any) -> bool:
        if absolute:
            return isinstance(value, int) and value >= 1
        return _is_number(value) and 0 < value <= 1

    wanted = "whole numbers of pixels" if absolute else "shares of the image in (0, 1]"
    what = f"two {wanted}, as TYPE '{node.TYPE}' takes them"
    _refuse_unless("INPUT.CROP.SIZE", size, fits, what)
    if len(size) != 2 or (node.TYPE == "absolute_range" and size[0] > size[1]):
        order = ", the smaller one first" if node.TYPE == "absolute_range" else ""
        raise InputError(f"INPUT.CROP.SIZE is {size!r}; set it to {what}{order}")


def _unread_crop(cfg: CfgNode) -> list[str]:
    """A warning for each setting of a crop that is not done."""
    node, default = cfg.INPUT.CROP, get_detectron2_cfg().INPUT.CROP
    # RandomCrop of INPUT.AUG takes what it does not say itself from there.
    if node.ENABLED or "RandomCrop" in str(cfg.INPUT.get("AUG", "")):
        return []
    return [
        f"INPUT.CROP.{key} is {node[key]!r}, but without INPUT.CROP.ENABLED nothing reads it; set "
        "INPUT.CROP.ENABLED True"
        for key in ("TYPE", "SIZE")
        if differ(node[key], default[key])
    ]


# What a sampler reads that Detectron2's defaults do not have.
_SAMPLERS_KEYS = {
    "RandomSubsetTrainingSampler": "DATALOADER.RANDOM_SUBSET_RATIO",
    "WeightedTrainingSampler": "DATASETS.TRAIN_REPEAT_FACTOR",
    "WeightedCategoryTrainingSampler": "DATASETS.TRAIN_REPEAT_FACTOR",
}


def _check_sampler(cfg: CfgNode) -> None:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    key = _SAMPLERS_KEYS.get(name, "")
    section, _, last = key.partition(".")
    if key and last not in cfg[section]:
        raise InputError(
            f"DATALOADER.SAMPLER_TRAIN is '{name}', which reads {key}, a key that this Detectron2 "
            f"has no default for; add it with retinanet_ext.register_config_key, or set "
            "SAMPLER_TRAIN to TrainingSampler"
        )


def _check_optimizer(solver: CfgNode) -> None:
    decay = solver.WEIGHT_DECAY_BIAS
    if decay is not None and not (_is_number(decay) and decay >= 0):
        raise InputError(
            f"SOLVER.WEIGHT_DECAY_BIAS is {decay!r}; set it to a number from 0, or None for "
            "WEIGHT_DECAY"
        )
    if solver.NESTEROV and solver.MOMENTUM == 0:
        raise InputError(
            "SOLVER.NESTEROV is True, but SOLVER.MOMENTUM is 0, so there is no momentum to look "
            "ahead with; set MOMENTUM to 0.9, or NESTEROV False"
        )


def _check_deformable(node: CfgNode) -> None:
    stages = node.DEFORM_ON_PER_STAGE
    if len(stages) != 4 or not all(isinstance(x, bool) for x in stages):
        raise InputError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE is {stages!r}; set it to four of True or False, "
            "for res2 to res5"
        )
    if any(stages):
        return
    for key, default in (("DEFORM_MODULATED", False), ("DEFORM_NUM_GROUPS", 1)):
        if node[key] != default:
            raise InputError(
                f"MODEL.RESNETS.{key} is {node[key]!r}, but DEFORM_ON_PER_STAGE is False for all "
                f"stages, so nothing reads it; set it to {default}, or a stage to True"
            )


def _check_expected_results(cfg: CfgNode) -> None:
    rows = cfg.TEST.EXPECTED_RESULTS
    for row in rows:
        if not _is_expectation(row):
            raise InputError(
                f"TEST.EXPECTED_RESULTS has {row!r}; write each as [task, metric, value, "
                "tolerance], such as ['bbox', 'AP', 36.5, 0.2]"
            )
    if rows and not cfg.DATASETS.TEST:
        raise InputError(
            f"TEST.EXPECTED_RESULTS is {rows!r}, but DATASETS.TEST is empty, so nothing is "
            "evaluated; name a dataset there, or give --val"
        )


def _is_expectation(row: Sequence[Any]) -> bool:
    if not isinstance(row, (list, tuple)) or len(row) != 4:
        return False
    return all(isinstance(x, str) for x in row[:2]) and all(_is_number(x) for x in row[2:])
