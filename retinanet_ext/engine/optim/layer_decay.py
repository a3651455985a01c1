"""Smaller learning rates for the lower layers of the backbone: SOLVER.LAYER_LR_DECAY."""

from __future__ import annotations

import logging

from torch import nn

from ...compat import NormBase
from ...errors import InputError

logger = logging.getLogger(__name__)

KEY = "SOLVER.LAYER_LR_DECAY"

# What a backbone calls the network inside of it: FPN, and Detectron2's pyramid over a ViT.
_INNER = ("bottom_up", "net")
# On a backbone's outputs, as in Swin and MViT.
_NORMS = (nn.LayerNorm, nn.GroupNorm, NormBase)


def layer_lr_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """What to multiply the learning rate of each parameter by.

    A parameter of layer d of D gets ``decay ** (D - d)``. The backbone's layers count from 0, its
    stem or patch embedding; the pyramid, norms on the backbone's outputs, and the head have D.

    Args:
        model: with ``backbone``; see :func:`backbone_layers`.
        decay: in (0, 1].

    Returns:
        By name, for all parameters, frozen ones too.

    Raises:
        ValueError: the backbone has no layers that follow each other.
    """
    layers = backbone_layers(model)
    factors = dict.fromkeys((name for name, _ in model.named_parameters()), 1.0)
    for depth, prefixes in enumerate(layers):
        for name in factors:
            # Convolutions that Detectron2 adds to a ViT's blocks, where pretraining has none.
            is_new = ".blocks." in name and ".residual." in name
            if name.startswith(prefixes) and not is_new:
                factors[name] = decay ** (len(layers) - depth)
    lowest, highest = layers[0][0], layers[-1][0]
    logger.info(
        "learning rates of the backbone's %d layers, times BASE_LR: from %.3g (%s) to %.3g (%s)",
        len(layers),
        decay ** len(layers),
        lowest.rstrip("."),
        decay,
        highest.rstrip("."),
    )
    return factors


def backbone_layers(model: nn.Module) -> list[tuple[str, ...]]:
    """Prefixes of the names of the parameters of each layer of ``model.backbone``, lowest first.

    Layers are the children of the network under the pyramid in the order in which it defines them,
    or where a child is an ``nn.ModuleList``, as the blocks of a ViT, its entries. Parameters of
    that network itself, such as a position embedding, belong to the lowest.

    Raises:
        ValueError: the model has no backbone, or that has fewer than two layers.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise InputError(f"{KEY} needs a model with a backbone, got {type(model).__name__}")
    prefix, trunk = _trunk("backbone.", backbone)
    layers: list[tuple[str, ...]] = []
    for name, child in trunk.named_children():
        is_list = isinstance(child, nn.ModuleList)
        entries = [f"{name}.{i}" for i, _ in child.named_children()] if is_list else [name]
        if _has_parameters(child) and not isinstance(child, _NORMS):
            layers += [(f"{prefix}{entry}.",) for entry in entries]
    if len(layers) < 2:
        raise InputError(
            f"{KEY} is set, but the parts of {type(trunk).__name__}, the network at "
            f"'{prefix.rstrip('.')}', do not show which layer follows which; set it to 1.0"
        )
    own = [f"{prefix}{name}" for name, _ in trunk.named_parameters(recurse=False)]
    layers[0] = (*layers[0], *own)
    return layers


def _trunk(prefix: str, module: nn.Module) -> tuple[str, nn.Module]:
    """The network under the pyramid, without modules that only wrap it."""
    for name in _INNER:
        inner = getattr(module, name, None)
        if isinstance(inner, nn.Module):
            return _trunk(f"{prefix}{name}.", inner)
    own = list(module.parameters(recurse=False))
    children = [(name, x) for name, x in module.named_children() if _has_parameters(x)]
    if len(children) == 1 and not isinstance(children[0][1], nn.ModuleList) and not own:
        return _trunk(f"{prefix}{children[0][0]}.", children[0][1])
    return prefix, module


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
