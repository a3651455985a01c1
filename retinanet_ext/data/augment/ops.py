"""What ``INPUT.AUG`` can hold: names, parameters, their ranges, and the augmentations they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T

from ..loading.pixels import ResizeShortestEdge, never_empty
from .mosaic import FILL, Mosaic
from .transforms import RandomBlur, RandomJPEG, RandomNoise, RandomRotation90, RandomZoomOut
from .validate import (
    Check,
    number,
    number_range,
    one_of,
    quarter_turns,
    shares,
    size,
    size_or_share,
    sizes,
    whole_number,
    whole_range,
)

__all__ = ["ENTRIES", "Entry", "Parameter", "default_augmentations"]

Build = Callable[[dict[str, Any], CfgNode], list[Any]]


@dataclass(frozen=True)
class Parameter:
    """A parameter of an entry: its default, and what says how a value is wrong.

    A default that starts with ``INPUT.`` is the value of that key.
    """

    default: Any
    check: Check


@dataclass(frozen=True)
class Entry:
    """An entry of ``INPUT.AUG``.

    Attributes:
        parameters: by name; every entry but Default also has PROB.
        build: makes its list of augmentations, or a Mosaic, from all parameters and the config.
        prob: default of PROB, the probability that the entry is applied.
        resizes: whether images come out at a size chosen for training.
    """

    parameters: dict[str, Parameter]
    build: Build
    prob: float = 1.0
    resizes: bool = False


def default_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Detectron2's augmentations of training: ``INPUT.CROP``, resize, ``INPUT.RANDOM_FLIP``."""
    augmentations = never_empty(detection_utils.build_augmentation(cfg, is_train=True))
    crop = cfg.INPUT.CROP
    return [*([T.RandomCrop(crop.TYPE, crop.SIZE)] if crop.ENABLED else []), *augmentations]


def _flip(p: dict[str, Any], cfg: CfgNode) -> list[Any]:
    horizontal = p["DIRECTION"] == "horizontal"
    return [T.RandomFlip(1.0, horizontal=horizontal, vertical=not horizontal)]


def _resize_shortest_edge(p: dict[str, Any], cfg: CfgNode) -> list[Any]:
    return [ResizeShortestEdge(list(p["SIZES"]), p["MAX_SIZE"], p["SAMPLING"])]


def _large_scale_jitter(p: dict[str, Any], cfg: CfgNode) -> list[Any]:
    height, width = p["SIZE"]
    crop = T.FixedSizeCrop((height, width), pad_value=FILL)
    return [T.ResizeScale(*p["SCALE"], height, width), crop]


def _crop(p: dict[str, Any], cfg: CfgNode) -> list[Any]:
    relative = p["TYPE"].startswith("relative")
    return [T.RandomCrop(p["TYPE"], tuple(p["SIZE"] if relative else map(int, p["SIZE"])))]


def _min_iou_crop(p: dict[str, Any], cfg: CfgNode) -> list[Any]:
    return [T.MinIoURandomCrop(tuple(p["MIN_IOUS"]), p["MIN_SIZE"])]


def _zoom_out(p: dict[str, Any], cfg: CfgNode) -> list[Any]:
    return [RandomZoomOut(p["MAX_RATIO"])]


def _mosaic(p: dict[str, Any], cfg: CfgNode) -> list[Any]:
    return [Mosaic(p["SIZE"], p["SCALE"], p["CENTER"])]


_FACTORS = Parameter([0.8, 1.2], number_range(0, 10))

ENTRIES: dict[str, Entry] = {
    "Default": Entry({}, lambda p, cfg: default_augmentations(cfg), resizes=True),
    "RandomFlip": Entry(
        {"DIRECTION": Parameter("horizontal", one_of("horizontal", "vertical"))}, _flip, prob=0.5
    ),
    "RandomRotation90": Entry(
        {"ANGLES": Parameter([0, 90, 180, 270], quarter_turns)},
        lambda p, cfg: [RandomRotation90(p["ANGLES"])],
    ),
    "Resize": Entry(
        {"SIZE": Parameter([800, 800], size)},
        lambda p, cfg: [T.Resize(tuple(p["SIZE"]))],
        resizes=True,
    ),
    "ResizeShortestEdge": Entry(
        {
            "SIZES": Parameter("INPUT.MIN_SIZE_TRAIN", sizes),
            "MAX_SIZE": Parameter("INPUT.MAX_SIZE_TRAIN", whole_number(1)),
            "SAMPLING": Parameter("INPUT.MIN_SIZE_TRAIN_SAMPLING", one_of("choice", "range")),
        },
        _resize_shortest_edge,
        resizes=True,
    ),
    "LargeScaleJitter": Entry(
        {
            "SIZE": Parameter([1024, 1024], size),
            "SCALE": Parameter([0.1, 2.0], number_range(0.01, 10)),
        },
        _large_scale_jitter,
        resizes=True,
    ),
    "RandomCrop": Entry(
        {
            "TYPE": Parameter(
                "INPUT.CROP.TYPE",
                one_of("relative", "relative_range", "absolute", "absolute_range"),
            ),
            "SIZE": Parameter("INPUT.CROP.SIZE", size_or_share),
        },
        _crop,
    ),
    "MinIoURandomCrop": Entry(
        {
            "MIN_IOUS": Parameter([0.1, 0.3, 0.5, 0.7, 0.9], shares),
            "MIN_SIZE": Parameter(0.3, number(0.05, 1)),
        },
        _min_iou_crop,
    ),
    "RandomZoomOut": Entry({"MAX_RATIO": Parameter(4.0, number(1, 10))}, _zoom_out, prob=0.5),
    "Mosaic": Entry(
        {
            "SIZE": Parameter([800, 800], size),
            "SCALE": Parameter([0.5, 1.0], number_range(0.05, 2)),
            "CENTER": Parameter(0.25, number(0.05, 0.5)),
        },
        _mosaic,
        prob=0.5,
    ),
    "RandomBrightness": Entry(
        {"RANGE": _FACTORS}, lambda p, cfg: [T.RandomBrightness(*p["RANGE"])]
    ),
    "RandomContrast": Entry({"RANGE": _FACTORS}, lambda p, cfg: [T.RandomContrast(*p["RANGE"])]),
    "RandomSaturation": Entry(
        {"RANGE": _FACTORS}, lambda p, cfg: [T.RandomSaturation(*p["RANGE"])]
    ),
    # Detectron2's scale is in grey values, of which AlexNet's images had a range of 1.
    "RandomLighting": Entry(
        {"SCALE": Parameter(0.1, number(0, 1))},
        lambda p, cfg: [T.RandomLighting(255 * p["SCALE"])],
    ),
    "RandomBlur": Entry(
        {"SIGMA": Parameter([0.1, 2.0], number_range(0, 50))},
        lambda p, cfg: [RandomBlur(*p["SIGMA"])],
        prob=0.5,
    ),
    "RandomNoise": Entry(
        {"STD": Parameter([0.0, 0.05], number_range(0, 1))},
        lambda p, cfg: [RandomNoise(*p["STD"])],
        prob=0.5,
    ),
    "RandomJPEG": Entry(
        {"QUALITY": Parameter([40, 95], whole_range(1, 95))},
        lambda p, cfg: [RandomJPEG(*p["QUALITY"])],
        prob=0.5,
    ),
}
