"""Towers of convolutions, shared across the levels of a pyramid, and their norms."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import CycleBatchNormList, get_norm
from torch import Tensor, nn

from ...errors import ConfigError, InputError
from ..speedups.hooked import is_hooked

MIN_VALUES = 32
"""Values of a channel from which batch norm can take a mean and a variance that mean something."""

NORM_PER_LEVEL = ("auto", "shared", "per_level")
"""Values of MODEL.RETINANET.NORM_PER_LEVEL, see :func:`build_tower`."""


def build_tower(
    in_channels: int,
    conv_dims: Sequence[int],
    norm: str,
    num_levels: int,
    norm_per_level: str = "auto",
) -> nn.Sequential:
    """Stack 3x3 convolution, norm and ReLU for each entry of ``conv_dims``.

    Activations differ between pyramid levels; ``norm_per_level`` says what of a norm differs, too:

    - ``auto``: "BN" and "SyncBN" keep one set of statistics per level and share the affine
      parameters, other norms are shared whole. So does Detectron2.
    - ``shared``: one norm for all levels.
    - ``per_level``: each level has a norm of its own, affine parameters and all.

    Norms that differ are visited in turn: such a tower has to be called level by level, from the
    first to the last.

    Args:
        in_channels: of the features.
        conv_dims: output channels of each convolution.
        norm: "" or a name for :func:`detectron2.layers.get_norm`.
        num_levels: L.
        norm_per_level: one of :data:`NORM_PER_LEVEL`.

    Raises:
        ValueError: if ``norm_per_level`` is unknown.
        KeyError: if ``norm`` is unknown.
    """
    check_norm_per_level(norm_per_level)
    layers: list[nn.Module] = []
    for dim in conv_dims:
        layers.append(nn.Conv2d(in_channels, dim, kernel_size=3, padding=1))
        if norm:
            layers.append(_build_norm(norm, dim, num_levels, norm_per_level))
        layers.append(nn.ReLU())
        in_channels = dim
    return Tower(*layers)


class Tower(nn.Sequential):
    """Layers one after the other, ReLUs in place as long as nobody listens to any of them.

    As in Detectron2, a hook then keeps the output that it was given, and may be one on gradients,
    which PyTorch refuses beside changes in place.
    """

    def forward(self, x: Tensor) -> Tensor:
        in_place = not is_hooked(*self.modules())
        for layer in self:
            x = F.relu_(x) if in_place and type(layer) is nn.ReLU else layer(x)
        return x


def few_values_warning(cfg: CfgNode, node: CfgNode) -> list[str]:
    """A warning where batch norm has its own statistics for a level of a few cells.

    They come from so few values that they are nearly arbitrary, and in evaluation, which uses them,
    such a level may find objects of the whole picture's size on every picture.

    Args:
        cfg: reads INPUT and SOLVER.IMS_PER_BATCH.
        node: the section of the head.
    """
    per_level = node.NORM_PER_LEVEL in ("auto", "per_level")
    strides = {x: 2 ** int(x[1:]) for x in node.IN_FEATURES if re.fullmatch(r"p\d+", x)}
    short = min(cfg.INPUT.MIN_SIZE_TRAIN, default=0)
    if node.NORM not in ("BN", "SyncBN") or not per_level or not strides or short < 1:
        return []
    values = {x: math.ceil(short / y) ** 2 * cfg.SOLVER.IMS_PER_BATCH for x, y in strides.items()}
    few = [x for x, number in values.items() if number < MIN_VALUES]
    if not few:
        return []
    worst = min(values, key=values.__getitem__)
    return [
        f"MODEL.RETINANET.NORM is '{node.NORM}' with statistics for each level, and those of "
        f"{' and '.join(few)} come from few values ({worst}: {values[worst]} in a batch of "
        f"{cfg.SOLVER.IMS_PER_BATCH} images of {short} pixels): in evaluation such a level may "
        "find large objects everywhere; set MODEL.RETINANET.NORM to GN, or raise "
        "INPUT.MIN_SIZE_TRAIN or SOLVER.IMS_PER_BATCH"
    ]


def check_norm_per_level(norm_per_level: str) -> None:
    """Raise ValueError, with the config key, unless :func:`build_tower` knows the value."""
    if norm_per_level not in NORM_PER_LEVEL:
        raise InputError(
            f"MODEL.RETINANET.NORM_PER_LEVEL is '{norm_per_level}'; set it to one of "
            f"{', '.join(NORM_PER_LEVEL)}"
        )


def _build_norm(norm: str, dim: int, num_levels: int, norm_per_level: str) -> nn.Module:
    if norm_per_level == "per_level":
        return LevelNorms([_get_norm(norm, dim) for _ in range(num_levels)])
    if norm_per_level == "auto" and norm in ("BN", "SyncBN"):
        bn_class = nn.BatchNorm2d if norm == "BN" else nn.SyncBatchNorm
        return CycleBatchNormList(num_levels, bn_class, num_features=dim)
    return _get_norm(norm, dim)


class AnySizeGroupNorm(nn.GroupNorm):
    """:class:`torch.nn.GroupNorm`, also for a group of a single value.

    With as many channels as groups, the coarsest level of one small picture is such a map, 1 x 1.
    PyTorch's module refuses it; its operator answers with the bias, as the definition says.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _get_norm(norm: str, dim: int) -> nn.Module:
    try:
        layer = get_norm(norm, dim)
        if type(layer) is nn.GroupNorm:
            layer.__class__ = AnySizeGroupNorm
        return layer
    except KeyError:
        raise ConfigError(
            f"MODEL.RETINANET.NORM is '{norm}', which detectron2.layers.get_norm does not know; "
            "set it to '', BN, SyncBN, FrozenBN, GN or LN"
        ) from None


class LevelNorms(nn.ModuleList):
    """One norm for each level, visited in turn: the call after the last is the first level's."""

    def __init__(self, norms: Sequence[nn.Module]):
        super().__init__(norms)
        self._next = 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the next level's activations (N, C, Hi, Wi)."""
        norm = self[self._next]
        self._next = (self._next + 1) % len(self)
        return norm(x)
