"""The network that names and shapes of tensors tell of: a ResNet, its pyramid, and a head."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..reading import WeightsError

__all__ = ["DEPTHS", "NameOf", "Network", "describe_network", "trunk_name"]

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
"""Whether blocks have three convolutions, and how many there are in each stage -> depth."""

NameOf = Callable[[str], str]
"""From Detectron2's name of a tensor to another toolkit's."""


@dataclass(frozen=True)
class Network:
    """What the names and shapes of the tensors tell.

    Attributes:
        blocks: residual blocks of the four stages.
        bottleneck: whether these have three convolutions.
        num_convs: convolutions of each subnet.
        has_norm: whether a group norm follows each of them.
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    num_convs: int
    has_norm: bool

    def names(self) -> list[str]:
        """Detectron2's names of all tensors, shortcuts in every first block included."""
        trunk = "backbone.bottom_up."
        convs = [f"{trunk}stem.conv1"]
        for stage, count in enumerate(self.blocks, start=2):
            for block in range(count):
                layers = [f"conv{i}" for i in range(1, 4 if self.bottleneck else 3)]
                if block == 0:
                    layers.append("shortcut")
                convs += [f"{trunk}res{stage}.{block}.{layer}" for layer in layers]
        found = []
        for conv in convs:
            found += [f"{conv}.weight", *(f"{conv}.norm.{part}" for part in NORM_PARTS)]
        levels = [f"backbone.fpn_{kind}{i}" for kind in ("lateral", "output") for i in (3, 4, 5)]
        layers = [*levels, "backbone.top_block.p6", "backbone.top_block.p7"]
        step = 3 if self.has_norm else 2
        for tower in ("cls_subnet", "bbox_subnet"):
            for i in range(self.num_convs):
                layers.append(f"head.{tower}.{i * step}")
                if self.has_norm:
                    layers.append(f"head.{tower}.{i * step + 1}")
        layers += ["head.cls_score", "head.bbox_pred"]
        return found + [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]

    def may_lack(self, name: str) -> bool:
        """Whether a network of this kind may do without the tensor: it has no bias, no shortcut."""
        if ".res2.0.shortcut." in name and not self.bottleneck:
            return True
        is_conv = re.fullmatch(r"head\.\w+_subnet\.(\d+)\.bias", name)
        return bool(self.has_norm and is_conv and int(is_conv[1]) % 3 == 0)


def trunk_name(name: str) -> str:
    """torchvision's name of a ResNet's tensor, from Detectron2's without the network's prefix."""
    name = re.sub(r"^stem\.", "", name)
    name = re.sub(r"^res(\d)", lambda m: f"layer{int(m[1]) - 1}", name)
    name = re.sub(r"conv(\d)\.norm", r"bn\1", name)
    return name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")


def describe_network(weights: Mapping[str, Tensor], name_of: NameOf) -> Network:
    """What network tensors belong to, whose names ``name_of`` gives.

    Raises:
        WeightsError: it is no ResNet that is known.
    """
    trunk = "backbone.bottom_up."
    blocks = []
    for stage in (2, 3, 4, 5):
        count = 0
        while name_of(f"{trunk}res{stage}.{count}.conv1.weight") in weights:
            count += 1
        blocks.append(count)
    bottleneck = name_of(f"{trunk}res2.0.conv3.weight") in weights
    if (bottleneck, tuple(blocks)) not in DEPTHS:
        raise WeightsError(
            f"its stages have {blocks} residual blocks, which is none of the ResNets "
            f"{', '.join(map(str, DEPTHS.values()))}; another backbone cannot be converted"
        )
    for step in (3, 2):  # with a norm between two convolutions, and without
        count = 0
        while name_of(f"head.cls_subnet.{count * step}.weight") in weights:
            count += 1
        has_norm = step == 3 and name_of("head.cls_subnet.1.weight") in weights
        if has_norm or step == 2:
            break
    return Network(tuple(blocks), bottleneck, count, has_norm)
