"""Files of torchvision's and timm's weights: in the caches of PyTorch and Hugging Face, or fetched.

What cannot be fetched is asked for by name: one sentence says which file to bring and where to.
"""

from __future__ import annotations

import glob
import json
import os
from typing import Any

import torch

from ..errors import ConfigError, did_you_mean, one_line
from .reading import WeightsError

__all__ = [
    "hub_file",
    "timm_file",
    "timm_statistics",
    "torchvision_statistics",
    "torchvision_url",
]

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of red, green and blue, from 0 to 255."""

_TIMM_URL = "https://huggingface.co/timm/{name}/resolve/main/model.safetensors"


def _torchvision_weights(name: str) -> Any:
    """The entry of torchvision's enum, of ``resnet50`` or ``resnet50.IMAGENET1K_V1``.

    Raises:
        ConfigError: torchvision has none, or it is no ResNet.
    """
    from torchvision import models

    network, _, version = name.partition(".")
    known = [x for x in models.list_models(module=models) if x.startswith(("res", "wide_resnet"))]
    if network not in known:
        raise ConfigError(
            f"MODEL.WEIGHTS is 'torchvision://{name}', but the networks of torchvision that fit "
            f"are {', '.join(known)}.{did_you_mean(network, known)}"
        )
    versions = models.get_model_weights(network)
    if not version:
        return versions.DEFAULT
    if version not in versions.__members__:
        raise ConfigError(
            f"MODEL.WEIGHTS is 'torchvision://{name}', but torchvision has of {network} "
            f"{', '.join(versions.__members__)}"
        )
    return versions[version]


def torchvision_statistics(name: str) -> Statistics:
    """Pixel statistics of torchvision's weights.

    Raises:
        ConfigError: see :func:`torchvision_url`.
    """
    transform = _torchvision_weights(name).transforms()
    return tuple(255 * x for x in transform.mean), tuple(255 * x for x in transform.std)


def torchvision_url(name: str) -> str:
    """Where torchvision's weights are.

    Args:
        name: of a network, ``resnet50`` (torchvision's default weights), or of one of its weights,
            ``resnet50.IMAGENET1K_V1``.

    Raises:
        ConfigError: torchvision has none of that name.
    """
    return str(_torchvision_weights(name).url)


def hub_file(url: str, wanted_by: str, file_name: str = "") -> str:
    """The file of ``url`` in the cache of PyTorch, fetched first if it is not there.

    Args:
        url: its name may hold the start of its SHA-256, as PyTorch's do, which is checked then.
        wanted_by: for the error.
        file_name: in the cache; the url's by default.

    Raises:
        WeightsError: it cannot be fetched; names the file and its place.
    """
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    path = os.path.join(folder, file_name or os.path.basename(url))
    if os.path.isfile(path):
        return path
    os.makedirs(folder, exist_ok=True)
    start = os.path.splitext(os.path.basename(url))[0].rpartition("-")[2]
    is_hash = len(start) >= 8 and all(x in "0123456789abcdef" for x in start)
    try:
        torch.hub.download_url_to_file(url, path, start if is_hash else None, progress=False)
    except (OSError, RuntimeError) as error:  # the second where the checksum is another
        raise WeightsError(
            f"MODEL.WEIGHTS '{wanted_by}' is not on this machine and {url} cannot be fetched "
            f"({one_line(error)[:100]}); download that file elsewhere and put it at {path}"
        ) from error
    return path


def _timm_folder(name: str) -> str | None:
    """The newest snapshot of timm's repository ``name`` in the cache of Hugging Face."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    hub = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    exact = os.path.join(hub, f"models--timm--{glob.escape(name)}", "snapshots", "*")
    tagged = os.path.join(hub, f"models--timm--{glob.escape(name)}.*", "snapshots", "*")
    found = [x for x in glob.glob(exact) + glob.glob(tagged) if _weights_in(x)]
    names = sorted({x.split(os.sep)[-3].removeprefix("models--timm--") for x in found})
    if len(names) > 1:
        raise ConfigError(
            f"MODEL.WEIGHTS is 'timm://{name}', but there are {', '.join(names)} on this machine; "
            "name one of them"
        )
    return max(found, key=os.path.getmtime) if found else None


def _weights_in(folder: str) -> str | None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    return None


def timm_file(name: str, wanted_by: str) -> str:
    """The file of timm's weights, fetched into PyTorch's cache if Hugging Face's has none.

    Raises:
        ConfigError: the cache has several that ``name`` may mean.
        WeightsError: it cannot be fetched.
    """
    folder = _timm_folder(name)
    found = None if folder is None else _weights_in(folder)
    return found or hub_file(_TIMM_URL.format(name=name), wanted_by, f"timm-{name}.safetensors")


def timm_statistics(name: str) -> Statistics:
    """Pixel statistics of timm's weights, from the ``config.json`` beside them.

    Without one they are timm's defaults: those of Inception (127.5) for networks ported from
    TensorFlow, ``tf_``, and of ImageNet for others.

    Raises:
        ConfigError: the cache has several that ``name`` may mean.
        WeightsError: that file is broken.
    """
    usual = name.startswith("tf_")
    mean: Any = (0.5, 0.5, 0.5) if usual else (0.485, 0.456, 0.406)
    std: Any = (0.5, 0.5, 0.5) if usual else (0.229, 0.224, 0.225)
    folder = _timm_folder(name)
    path = None if folder is None else os.path.join(folder, "config.json")
    if path is not None and os.path.isfile(path):
        try:
            with open(path, encoding="utf-8") as file:
                node = json.load(file)["pretrained_cfg"]
            mean, std = [float(x) for x in node["mean"]], [float(x) for x in node["std"]]
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{path} does not say 'mean' and 'std' of its 'pretrained_cfg'; download it again"
            ) from error
    return tuple(255 * x for x in mean), tuple(255 * x for x in std)
