"""Weights of a detector trained with other classes: what of the last layers can be kept.

Letters: A anchors per location, K classes of the model, J classes of the checkpoint. A class has
rows a*K + k of ``cls_score``, for each anchor a; with a box regressor per class, four times as many
of ``bbox_pred``, in the order (A, K, 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from torch import Tensor, nn

from ...errors import listed

COCO_CLASSES = 80
SCORE = "head.cls_score"
_MAX_NAMES = 5  # in a log line or an error


@dataclass(frozen=True)
class ClassTransfer:
    """What happened to the classes of a checkpoint.

    Attributes:
        copied: classes of the model whose rows come from the class of that name.
        new: classes of the model that keep the rows it was built with: random weights of std 0.01,
            and the prior in the bias (Sec. 3.3).
        left_out: classes of the checkpoint that the model does not have; None if their names are
            unknown.
        layers: names of the parameters that have rows for each class.
    """

    copied: tuple[str, ...]
    new: tuple[str, ...]
    left_out: tuple[str, ...] | None
    layers: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"copied {_counted(self.copied)} by name", f"new {_counted(self.new)}"]
        if self.left_out is None:
            parts.append("the checkpoint does not tell its classes")
        else:
            parts.append(f"left out {_counted(self.left_out)}")
        return "classes: " + ", ".join(parts)


def match_classes(
    model: nn.Module,
    weights: dict[str, Any],
    old_names: Sequence[str] | None,
    new_names: Sequence[str],
) -> tuple[ClassTransfer, dict[str, Tensor]] | None:
    """Find the rows of the model's classes in weights that were trained with other classes.

    Names are equal if they differ only in case or surrounding space. Nothing is changed.

    Args:
        model: just built; with ``head.cls_score`` and ``num_classes``, as RetinaNet has.
        weights: tensors or arrays by name.
        old_names: the checkpoint's J classes; None if it does not tell. 80 unnamed classes are
            COCO's, as in Detectron2's model zoo.
        new_names: the model's K classes.

    Returns:
        None where there is nothing to do: the classes are the same, or, as far as is known, may be;
        or model or weights have no such layer. Otherwise what happened, and the tensors to load in
        place of those in ``weights``, by name.
    """
    head, num_classes = getattr(model, "head", None), len(new_names)
    score, prefix = getattr(head, "cls_score", None), _prefix(weights)
    if prefix is None or score is None or getattr(model, "num_classes", None) != num_classes:
        return None
    # Of a softmax each anchor has one more row, the background's, which every model has.
    more = int(getattr(head, "classifier", "sigmoid") == "softmax")
    rows = len(weights[f"{prefix}{SCORE}.weight"])
    anchors = score.out_channels // (num_classes + more)
    fits = rows == score.out_channels
    if fits and (old_names is None or len(old_names) != num_classes):
        return None
    if old_names is None and rows == anchors * (COCO_CLASSES + more):
        old_names = MetadataCatalog.get("coco_2017_train").get("thing_classes")
    if fits and _keys(old_names or ()) == _keys(new_names):
        return None
    rows_per_class = {SCORE: 1}
    if not getattr(head, "cls_agnostic_bbox_reg", True):
        rows_per_class["head.bbox_pred"] = 4
    sizes = {f"{x}.{y}": n for x, n in rows_per_class.items() for y in ("weight", "bias")}
    state = model.state_dict()
    old = {name: torch.as_tensor(weights.get(prefix + name, ())) for name in sizes}
    pairs = _pairs(old_names or (), new_names)
    for name, size in sizes.items():
        old_rows = len(old_names or ()) + more * name.startswith(SCORE)
        if old[name].shape != (anchors * old_rows * size, *state[name].shape[1:]):
            pairs = {}  # other anchors or channels: no row of a class fits
    of_score = {**pairs, num_classes: len(old_names or ())} if more else pairs
    merged = {
        prefix + name: _merge(
            state[name],
            old[name] if pairs else None,
            of_score if name.startswith(SCORE) else pairs,
            anchors,
            size,
        )
        for name, size in sizes.items()
    }
    return _describe(pairs, old_names, new_names, tuple(sizes)), merged


def _prefix(weights: dict[str, Any]) -> str | None:
    """Prefix of the RetinaNet's weight names; None if the checkpoint is of another model."""
    for prefix in ("", "module."):  # the second where DistributedDataParallel was saved as a whole
        if f"{prefix}{SCORE}.weight" in weights:
            return prefix
    return None


def _keys(names: Sequence[str]) -> list[str]:
    return [name.strip().casefold() for name in names]


def _pairs(old_names: Sequence[str], new_names: Sequence[str]) -> dict[int, int]:
    """Index in ``new_names`` -> index of the first equal one in ``old_names``."""
    first: dict[str, int] = {}
    for index, key in enumerate(_keys(old_names)):
        first.setdefault(key, index)
    return {i: first[key] for i, key in enumerate(_keys(new_names)) if key in first}


def _merge(
    new: Tensor, old: Tensor | None, pairs: dict[int, int], anchors: int, size: int
) -> Tensor:
    """``new`` (A*K*size, ...) with the rows of ``pairs`` taken from ``old`` (A*J*size, ...)."""
    merged = new.clone()
    if old is not None:
        target = merged.view(anchors, -1, size, *new.shape[1:])
        source = old.to(new).reshape(anchors, -1, size, *new.shape[1:])
        target[:, list(pairs)] = source[:, list(pairs.values())]
    return merged


def _describe(
    pairs: dict[int, int],
    old_names: Sequence[str] | None,
    new_names: Sequence[str],
    layers: tuple[str, ...],
) -> ClassTransfer:
    copied = tuple(name for i, name in enumerate(new_names) if i in pairs)
    new = tuple(name for i, name in enumerate(new_names) if i not in pairs)
    left_out = None
    if old_names is not None:
        used = set(pairs.values())
        left_out = tuple(name for i, name in enumerate(old_names) if i not in used)
    return ClassTransfer(copied, new, left_out, layers)


def _counted(names: Sequence[str]) -> str:
    """``2 (a, b)``, or ``9 (a, b, c, d, e and 4 more)``, or ``0``."""
    return f"{len(names)} ({listed(names, _MAX_NAMES)})" if names else "0"
