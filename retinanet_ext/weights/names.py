"""Names of other packages' ImageNet networks, turned into those of the network under a pyramid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

__all__ = ["lite_from_efficientnet_lite_pytorch", "lite_from_timm", "resnet_from_torchvision"]

_LITE = {
    "_expand_conv": "expand",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise.norm",
    "_project_conv": "project",
    "_bn2": "project.norm",
}
_TIMM_FIRST = {
    "conv_dw": "depthwise",
    "bn1": "depthwise.norm",
    "conv_pw": "project",
    "bn2": "project.norm",
}
_TIMM = {
    "conv_pw": "expand",
    "bn1": "expand.norm",
    "conv_dw": "depthwise",
    "bn2": "depthwise.norm",
    "conv_pwl": "project",
    "bn3": "project.norm",
}
_COUNTER = "num_batches_tracked"  # not in Detectron2's FrozenBatchNorm2d


def resnet_from_torchvision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ResNet, ResNeXt and wide ResNet of torchvision, and timm's of the same build.

    Args:
        weights: with its classifier, ``fc``, which is left out.
    """
    found = {}
    for name, value in _without(weights, ("fc.",)):
        if name.startswith(("conv1.", "bn1.")):
            name = f"stem.{name}"
        name = re.sub(r"^layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        found[re.sub(r"bn(\d)\.", r"conv\1.norm.", name)] = value
    return found


def lite_from_efficientnet_lite_pytorch(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite of the package efficientnet-lite-pytorch; its classifier is left out."""
    found = {}
    for name, value in _without(weights, ("_conv_head.", "_bn1.", "_fc.")):
        part, _, rest = name.partition(".")
        if part in ("_conv_stem", "_bn0"):
            found[f"stem.conv{'.norm' if part == '_bn0' else ''}.{rest}"] = value
        else:
            index, layer, last = rest.split(".")
            found[f"blocks.{index}.{_LITE[layer]}.{last}"] = value
    return found


def lite_from_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's ``tf_efficientnet_lite``, whose blocks are counted stage by stage."""
    kept = dict(_without(weights, ("conv_head.", "bn2.", "classifier.")))
    places = {tuple(k.split(".")[1:3]) for k in kept if k.startswith("blocks.")}
    numbers = {place: i for i, place in enumerate(sorted(places, key=lambda x: [*map(int, x)]))}
    found = {}
    for name, value in kept.items():
        part, _, rest = name.partition(".")
        if part in ("conv_stem", "bn1"):
            found[f"stem.conv{'.norm' if part == 'bn1' else ''}.{rest}"] = value
            continue
        stage, block, layer, last = rest.split(".")
        layers = _TIMM_FIRST if stage == "0" else _TIMM
        found[f"blocks.{numbers[stage, block]}.{layers[layer]}.{last}"] = value
    return found


def _without(
    weights: Mapping[str, Tensor], prefixes: tuple[str, ...]
) -> Iterable[tuple[str, Tensor]]:
    return [
        (name, value)
        for name, value in weights.items()
        if not name.startswith(prefixes) and not name.endswith(_COUNTER)
    ]
