"""A model that cannot be built from its settings: which of them it is, in one sentence.

Detectron2's classes answer to impossible settings with a KeyError, an AssertionError without words
or an error of a convolution. That a setting is at fault is proven here: with the setting at another
value the same model can be built. Whatever else fails is a bug, and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from ..config import get_cfg, load_config_file
from ..config.keys import differ, find
from ..config.load import flatten
from ..config.shipped import CONFIGS
from ..config.unread_keys import choosers
from ..errors import InputError, UserError, one_line

__all__ = ["impossible_model_explained"]

REFERENCE = CONFIGS / "Base-RetinaNet.yaml"
"""The shipped config whose values are tried beside Detectron2's defaults."""

# Packages in which an error may be one of settings; in others it is the user's own code that fails.
_KNOWN_PACKAGES = ("retinanet_ext", "detectron2", "fvcore", "torch", "torchvision", "contextlib")
_ARCHITECTURE = "MODEL.META_ARCHITECTURE"


@contextlib.contextmanager
def impossible_model_explained(cfg: CfgNode) -> Iterator[None]:
    """Within the block, which builds the model of ``cfg``, settings that rule it out are named.

    Raises:
        InputError: the keys, their values and what failed.
    """
    try:
        yield
    except Exception as error:
        sentence = None if _is_no_matter_of_settings(error) else _explain(cfg, error)
        if sentence is None:
            raise
        raise InputError(sentence) from error


def _is_no_matter_of_settings(error: Exception) -> bool:
    if isinstance(error, (UserError, OSError, torch.OutOfMemoryError)):
        return True
    # The first two frames are this module's and that of the block.
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][2:]
    packages = {frame.f_globals.get("__name__", "").partition(".")[0] for frame in frames}
    return not packages <= set(_KNOWN_PACKAGES)


def _explain(cfg: CfgNode, error: Exception) -> str | None:
    """The sentence, or None where no setting is proven to be the cause."""
    if type(_failure(cfg)) is not type(error):  # another device, or chance, decides
        return None
    other_values = _other_values(cfg)
    culprits = [
        key
        for key, values in other_values.items()
        if any(_failure(_with(cfg, {key: value})) is None for value in values)
    ]
    if not culprits:
        return None
    known = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
    named = ", ".join(f"{key} is {find(cfg, key)!r}" for key in culprits)
    if len(culprits) == 1:
        key = culprits[0]
        alternative = next(x for x in other_values[key] if _failure(_with(cfg, {key: x})) is None)
        return (
            f"{named}, with which the model cannot be built ({known}); {alternative!r} would work"
        )
    return f"{named}: with these together the model cannot be built ({known}); change one of them"


def _other_values(cfg: CfgNode) -> dict[str, list[Any]]:
    """By key of the model: what it is in Detectron2's defaults and in :data:`REFERENCE`.

    Without what chooses a component: with another one the model would be another.
    """
    reference = get_cfg()
    load_config_file(reference, REFERENCE)
    defaults = dict(flatten(get_cfg()))
    chosen = {*choosers(), "MODEL.FPN.BOTTOM_UP"}
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    if not architecture.__module__.startswith("detectron2."):
        chosen.add(_ARCHITECTURE)
    found: dict[str, list[Any]] = {}
    for key, value in flatten(cfg):
        if not key.startswith("MODEL.") or key in chosen or key not in defaults:
            continue
        # RetinaNet's settings suit no default architecture of Detectron2's.
        others = [find(reference, key)] + ([] if key == _ARCHITECTURE else [defaults[key]])
        others = [x for x in others if differ(x, value)]
        if others:
            found[key] = others
    return found


def _with(cfg: CfgNode, values: dict[str, Any]) -> CfgNode:
    changed = cfg.clone()
    changed.defrost()
    for key, value in values.items():
        section, _, last = key.rpartition(".")
        find(changed, section)[last] = value
    return changed


def _failure(cfg: CfgNode) -> Exception | None:
    """What building the model of ``cfg``, without memory, fails with; None if it does not."""
    cfg = _with(cfg, {"MODEL.DEVICE": "meta"})
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            build_model(cfg)
    except Exception as error:
        return error
    return None
