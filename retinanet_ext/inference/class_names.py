"""What a model's classes are called."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from detectron2.config import CfgNode

from ..data.datasets.by_path import register_extra_datasets
from ..data.datasets.register import load_class_names, register_builtin_datasets
from ..structures import detection_node
from ..weights.reading import CLASSES_KEY, read_torch

__all__ = ["class_names_of"]


def class_names_of(cfg: CfgNode, data_root: str | None = None) -> list[str]:
    """Names of a model's classes: those in its checkpoint, or of the datasets of its config.

    Where neither tells them (a file of a model zoo, and the data are on another machine), they are
    ``DATASETS.CLASSES``, or else ``class 0`` and so on, and a line on the standard output says so.

    Args:
        cfg: reads ``MODEL.WEIGHTS``, ``NUM_CLASSES`` of the model and ``DATASETS``.
        data_root: folder of the built-in datasets.
    """
    if data_root is not None:
        register_builtin_datasets(data_root)
    node = detection_node(cfg)
    num_classes = 0 if node is None else node.NUM_CLASSES
    for names in _choices(cfg):
        if len(names) == num_classes:
            return list(names)
    print(
        f"neither the weights nor a dataset of the config name the {num_classes} classes, which "
        "are numbered therefore; DATASETS.CLASSES can name them"
    )
    return [f"class {i}" for i in range(num_classes)]


def _choices(cfg: CfgNode) -> Iterator[Sequence[str]]:
    """Lists of names, the surest first."""
    weights = cfg.MODEL.WEIGHTS
    if weights.endswith(".pth") and os.path.isfile(weights):
        yield read_torch(weights).get(CLASSES_KEY) or ()
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        names = None
        with contextlib.suppress(OSError, ValueError, KeyError):  # not on this machine
            register_extra_datasets(cfg, [name])
            names = load_class_names(name)
        yield names or ()
    yield cfg.DATASETS.CLASSES
