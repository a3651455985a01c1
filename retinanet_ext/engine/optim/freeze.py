"""Parts of the network that a run does not train: MODEL.RETINANET.FREEZE."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from ...compat import BatchNorm
from ...errors import ConfigError, InputError, did_you_mean

logger = logging.getLogger(__name__)

KEY = "MODEL.RETINANET.FREEZE"


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Take parts of ``model`` out of training, in place.

    Their parameters get no gradient, and their batch norms stay in evaluation mode, with the
    statistics they have, even after ``model.train()``. Call it before the optimizer is built and
    before the model is wrapped for several processes.

    Args:
        model: with ``backbone``.
        names: ``"backbone"`` is the network under the pyramid, or all of ``model.backbone`` where
            there is none; ``"fpn"`` the pyramid; ``"head"`` all of the head; others are parts of
            the head, such as ``"cls_subnet"``, or of a model without one, such as ``"roi_heads"``;
            names with dots are modules at any depth, such as ``"backbone.bottom_up.res2"``.

    Raises:
        KeyError: the model has no part of that name, or none with parameters.
        ValueError: nothing is left to train.
    """
    if not names:
        return
    parts = freezable_parts(model)
    modules = dict(model.named_modules())
    for name in names:
        if "." in name and name in modules:
            parts[name] = [modules[name]]
        if name not in parts:
            raise ConfigError(
                f"{KEY} holds '{name}', which this model does not have."
                f"{did_you_mean(name, parts)} It has {', '.join(parts)}."
            )
        for module in parts[name]:
            _freeze_module(module)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    left = sum(size for size, trained in sizes if trained)
    if not left:
        raise InputError(
            f"{KEY} is {list(names)}, which leaves nothing to train; take a part out of it, or "
            "only evaluate, with --eval-only"
        )
    total = sum(size for size, _ in sizes)
    logger.info("frozen: %s; %.2f M of %.2f M trained", ", ".join(names), left / 1e6, total / 1e6)


def freezable_parts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Names that :func:`freeze` takes for ``model``, with the modules they stand for."""
    backbone: Any = model.backbone
    head: Any = getattr(model, "head", None)
    bottom_up = getattr(backbone, "bottom_up", getattr(backbone, "net", None))  # ViTDet's is net
    parts: dict[str, list[nn.Module]] = {"backbone": [backbone if bottom_up is None else bottom_up]}
    if bottom_up is not None:
        parts["fpn"] = [x for x in backbone.children() if x is not bottom_up]
    if head is None:
        others = {name: [x] for name, x in model.named_children() if x is not backbone}
    else:
        others = {"head": [head], **{name: [x] for name, x in head.named_children()}}
    parts.update(others)
    return {k: v for k, v in parts.items() if any(True for x in v for _ in x.parameters())}


def _freeze_module(module: nn.Module) -> None:
    module.requires_grad_(False)
    for child in module.modules():
        if isinstance(child, BatchNorm):
            child.eval()
            # An attribute of this one object, in front of its class's method.
            child.train = _StayInEval(child)  # type: ignore[method-assign, assignment]


class _StayInEval:
    """``train`` of a module that stays in evaluation mode; can be copied and pickled with it."""

    def __init__(self, module: nn.Module):
        self._module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return type(self._module).train(self._module, False)
