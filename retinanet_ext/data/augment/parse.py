"""Read ``INPUT.AUG``: every mistake is found before anything is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode

from ...errors import ConfigError, InputError, did_you_mean
from ...registry import register_config_check
from .mosaic import Mosaic
from .ops import ENTRIES
from .validate import number

__all__ = ["DEFAULT", "Step", "check_augmentations", "is_default", "parse_augmentations"]

DEFAULT = ["Default"]
"""Value of ``INPUT.AUG`` that leaves everything to Detectron2's mapper."""

_PROB = number(0, 1)


@dataclass(frozen=True)
class Step:
    """One entry: augmentations applied together with probability ``prob``, or one Mosaic."""

    name: str
    prob: float
    augmentations: list[Any]

    @property
    def is_mosaic(self) -> bool:
        """Whether this step takes further images."""
        return isinstance(self.augmentations[0], Mosaic)


def is_default(cfg: CfgNode) -> bool:
    """Whether training augments as Detectron2 does."""
    names = [x["NAME"] if isinstance(x, dict) and set(x) == {"NAME"} else x for x in cfg.INPUT.AUG]
    return names == DEFAULT and cfg.INPUT.AUG_MIN_VISIBLE == 0


@register_config_check
def check_augmentations(cfg: CfgNode) -> None:
    """Check ``INPUT.AUG``, and what does not go together with it.

    Raises:
        KeyError: an unknown name of an augmentation or parameter, with the nearest real one.
        ValueError: a value out of range, or keys that do not go together.
    """
    steps = parse_augmentations(cfg)
    if is_default(cfg):
        return
    for key, on in (
        ("MODEL.MASK_ON", cfg.MODEL.MASK_ON),
        ("MODEL.KEYPOINT_ON", cfg.MODEL.KEYPOINT_ON),
        ("MODEL.LOAD_PROPOSALS", cfg.MODEL.LOAD_PROPOSALS),
    ):
        if on:
            raise InputError(f"INPUT.AUG moves boxes only, but {key} is True; set it to False")
    if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
        raise InputError(
            f"INPUT.AUG needs colour images, but INPUT.FORMAT is '{cfg.INPUT.FORMAT}'; set it to "
            "BGR or RGB"
        )
    _check_together(cfg, steps)


def _check_together(cfg: CfgNode, steps: list[Step]) -> None:
    names = [step.name for step in steps]
    for name in ("Default", "Mosaic"):
        if names.count(name) > 1:
            raise InputError(f"INPUT.AUG has {name} {names.count(name)} times; keep one")
    if "Default" in names:
        return
    if cfg.INPUT.CROP.ENABLED:
        raise InputError(
            "INPUT.CROP.ENABLED is True, but INPUT.AUG has no Default, which would read it; use "
            "{NAME: RandomCrop} in INPUT.AUG instead"
        )
    if not any(ENTRIES[step.name].resizes and step.prob == 1 for step in steps):
        raise InputError(
            f"INPUT.AUG {names} leaves images at their own size; add Default (Detectron2's resize "
            "and flip) or one of "
            f"{', '.join(name for name, x in ENTRIES.items() if x.resizes and name != 'Default')} "
            "with PROB 1. If that is meant, add {NAME: ResizeShortestEdge, SIZES: [0]}"
        )


def parse_augmentations(cfg: CfgNode) -> list[Step]:
    """Return the steps of ``INPUT.AUG``, in their order.

    Raises:
        KeyError, ValueError: see :func:`check_augmentations`.
    """
    if not cfg.INPUT.AUG:
        raise InputError("INPUT.AUG is empty; write [Default] for Detectron2's augmentations")
    _check_input_keys(cfg)
    return [_step(row, i, cfg) for i, row in enumerate(cfg.INPUT.AUG)]


def _step(row: Any, number: int, cfg: CfgNode) -> Step:
    where = f"INPUT.AUG, entry {number}"
    row = {"NAME": row} if isinstance(row, str) else row
    if not isinstance(row, dict) or not isinstance(row.get("NAME"), str):
        raise InputError(f"{where} is {row!r}, but must be a name or {{NAME: ..., PROB: ..., ...}}")
    name = row["NAME"]
    if name not in ENTRIES:
        raise ConfigError(
            f"{where} is '{name}', which is no augmentation.{did_you_mean(name, ENTRIES)} Known: "
            f"{', '.join(ENTRIES)}"
        )
    where = f"{where} ({name})"
    entry = ENTRIES[name]
    checks = {key: parameter.check for key, parameter in entry.parameters.items()}
    if name != "Default":
        checks["PROB"] = _PROB
    values = {key: _default(p.default, cfg) for key, p in entry.parameters.items()}
    values |= {key: value for key, value in row.items() if key != "NAME"}
    for key, value in values.items():
        if key not in checks:
            known = f"Known: {', '.join(checks)}" if checks else "It has none"
            raise ConfigError(
                f"{where} has the parameter '{key}'.{did_you_mean(str(key), checks)} {known}"
            )
        if wrong := checks[key](value):
            raise InputError(f"{where}: {key} is {value!r}, but must be {wrong}")
    _check_units(where, name, values)
    prob = float(values.pop("PROB", entry.prob))
    return Step(name, prob, entry.build(values, cfg))


def _default(value: Any, cfg: CfgNode) -> Any:
    """A default, or the value of the key that it names."""
    if not (isinstance(value, str) and value.startswith("INPUT.")):
        return value
    node: Any = cfg
    for part in value.split("."):
        node = node[part]
    return node


def _check_input_keys(cfg: CfgNode) -> None:
    """Check the keys of Detectron2 on which its augmentations fail without naming them."""
    node = cfg.INPUT
    for key, known in (
        ("RANDOM_FLIP", ("none", "horizontal", "vertical")),
        ("MIN_SIZE_TRAIN_SAMPLING", ("choice", "range")),
    ):
        if node[key] not in known:
            raise InputError(f"INPUT.{key} is '{node[key]}'; set it to one of {', '.join(known)}")
    if node.MIN_SIZE_TRAIN_SAMPLING == "range" and len(node.MIN_SIZE_TRAIN) != 2:
        raise InputError(
            f"INPUT.MIN_SIZE_TRAIN is {node.MIN_SIZE_TRAIN}, but with MIN_SIZE_TRAIN_SAMPLING "
            "range it must be (smallest, largest)"
        )


def _check_units(where: str, name: str, values: dict[str, Any]) -> None:
    """Check what depends on another parameter."""
    if name == "RandomCrop":
        first, second = values["SIZE"]
        if values["TYPE"].startswith("relative"):
            wrong = "" if max(first, second) <= 1 else "shares in (0, 1]"
        else:
            wrong = "" if first == int(first) and second == int(second) else "whole pixels"
        if values["TYPE"] == "absolute_range" and first > second:
            wrong = "[smallest, largest]"
        if wrong:
            raise InputError(
                f"{where}: SIZE is {values['SIZE']!r}, but with TYPE {values['TYPE']} must be "
                f"{wrong}"
            )
    if name == "ResizeShortestEdge" and values["SAMPLING"] == "range":
        bounds = values["SIZES"]
        if len(bounds) != 2 or bounds[0] > bounds[1]:
            raise InputError(
                f"{where}: SIZES is {bounds!r}, but with SAMPLING range must be [smallest, largest]"
            )
