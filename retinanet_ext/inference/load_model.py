"""The model of a config: a network of PyTorch with its weights, or an exported file."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_model

from ..engine.checkpoint.checkpointer import SafeCheckpointer
from ..engine.impossible_model import impossible_model_explained
from ..errors import InputError, MissingFileError
from .class_names import class_names_of
from .exported import is_export
from .exported.model import build_exported

__all__ = ["check_weights", "load_model"]


def check_weights(cfg: CfgNode) -> None:
    """Raise InputError, or FileNotFoundError, unless ``MODEL.WEIGHTS`` can be loaded."""
    weights = cfg.MODEL.WEIGHTS
    if not weights:
        raise InputError("MODEL.WEIGHTS is empty; set it to the model's checkpoint")
    if "://" not in weights and not os.path.isfile(weights):
        raise MissingFileError(f"MODEL.WEIGHTS is '{weights}', and there is no such file")


def load_model(cfg: CfgNode, class_names: Sequence[str] = ()) -> tuple[Any, list[str]]:
    """The model in evaluation mode, and the names of its classes, (K,).

    Args:
        cfg: of the model, validated, with its ``MODEL.WEIGHTS``: a checkpoint or an exported file.
        class_names: (K,); empty: those of the file, of the weights or of the config's datasets.

    Raises:
        UserError: what is in the file does not fit the config.
    """
    weights = cfg.MODEL.WEIGHTS
    if is_export(weights):
        exported = build_exported(cfg)
        return exported.eval(), list(class_names or exported.sidecar.class_names)
    names = list(class_names or class_names_of(cfg))
    without = cfg.clone()
    without.defrost()
    without.MODEL.WEIGHTS = ""
    with impossible_model_explained(without):
        model = build_model(without)
    SafeCheckpointer(model, require_all=True).load(weights)
    gc.collect()  # what the file held is in a circle of references, and as large as the model
    return model.eval(), names
