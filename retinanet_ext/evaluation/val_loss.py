"""The losses of training on a whole validation set, without any effect on the training."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import DropBlock2d, StochasticDepth

from ..compat import Dropout, NormBase
from ..data.loading.bad_images import LoadOrFail
from ..data.loading.ignore_mapper import IgnoreRegionMapper, wants_ignored
from ..data.loading.pixels import PictureMapper
from ..errors import InputError
from ..modeling.criteria.normalizer import LossNormalizer
from ..random_state import random_state_kept

__all__ = ["build_val_loss_loader", "validation_losses"]

RANDOM = (Dropout, DropBlock2d, StochasticDepth)
"""Modules that are random in training mode, and off otherwise; DropBlock3d is a DropBlock2d."""
RANDOM_NAMES = {"DropPath", "DropBlock", "DropBlock2D", "DropBlock2d", "PatchDropout"}
"""Such classes of timm, and of what copies them from project to project, which share no base."""

# One image's losses by name, and its positive anchors where the model counts them.
_OfImage = tuple[dict[str, float], int]


def build_val_loss_loader(cfg: CfgNode, dataset_name: str) -> Any:
    """Images at the size of evaluation with the ground truth of training, each once.

    Nothing is random: no flip, crop or augmentation. Crowds and ignored regions are as in training,
    and images without objects are there. Over several processes, each has its share.

    Args:
        cfg: as of training.
        dataset_name: a registered dataset.

    Raises:
        BadImageError: while it is iterated, an image that cannot be loaded.
    """
    mapper = (IgnoreRegionMapper if wants_ignored(cfg) else PictureMapper)(cfg, is_train=False)
    mapper.is_train = True  # keeps the annotations; the resize stays that of evaluation
    loads = LoadOrFail(mapper, "fix it, or remove it from the set")
    return build_detection_test_loader(cfg, dataset_name, mapper=loads)


@torch.no_grad()
def validation_losses(model: nn.Module, data_loader: Iterable[Any]) -> dict[str, float]:
    """Losses of ``model`` over a whole set: ``total``, and each by name, such as ``cls``.

    Images go through the network one by one, so that the numbers depend neither on the size nor the
    order of batches nor on the number of processes. A model with a :class:`LossNormalizer` gives
    sums over the set divided by the set's positive anchors, at least 1, whatever normalizer it is
    trained with; other models give means over images.

    Batch norms use their running statistics, and dropout is off. All is as before afterwards: mode,
    buffers and numbers of each module, gradients, random states, event storage. Random numbers of
    the model, such as those that choose proposals, are the same for each image and at each call.

    Args:
        model: gives a dict of losses in training mode; may be wrapped for several processes.
        data_loader: batches of images with ``instances``; over several processes, each one's share.
            All of them must call this function, and get the same result.

    Raises:
        ValueError: an image without ``instances``, or a set without images.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    devices = {x.device.index for x in model.parameters() if x.is_cuda}
    with _unchanged(model), random_state_kept(devices), EventStorage():
        of_images = list(_of_images(model, data_loader))
    everywhere = [x for part in comm.all_gather(of_images) for x in part]
    if not everywhere:
        raise InputError("the validation loss needs at least one image, got none")
    normalizer = len(everywhere)
    if _normalizers(model):
        normalizer = max(1, sum(positives for _, positives in everywhere))
    names = list(dict.fromkeys(name for losses, _ in everywhere for name in losses))
    # fsum is exact, so the order of the images does not matter.
    sums = {name: math.fsum(x.get(name, 0.0) for x, _ in everywhere) for name in names}
    means = {name.removeprefix("loss_"): value / normalizer for name, value in sums.items()}
    return {"total": math.fsum(sums.values()) / normalizer, **means}


def _of_images(model: nn.Module, data_loader: Iterable[Any]) -> Iterator[_OfImage]:
    _set_modes(model)
    for batch in data_loader:
        for image in batch:
            if "instances" not in image:
                raise InputError(
                    f"{image.get('file_name', 'an image')} has no annotations, not even an empty "
                    "list, so there is no validation loss; set TEST.VAL_LOSS False"
                )
            # Some architectures keep running numbers and draw samples: the same for each image.
            _seed()
            with contextlib.ExitStack() as stack:
                counts = [stack.enter_context(x.counting()) for x in _normalizers(model)]
                if not counts:
                    stack.enter_context(_unchanged(model))
                losses = model([image])
                positives = sum(sum(x) for x in counts)
            values = torch.stack([x.detach().float().sum() for x in losses.values()]).tolist()
            yield dict(zip(losses, values, strict=True)), positives


def _normalizers(model: nn.Module) -> list[LossNormalizer]:
    return [module for module in model.modules() if isinstance(module, LossNormalizer)]


def _set_modes(model: nn.Module) -> None:
    """Training mode, in which models give losses, but for what is random or gathers statistics."""
    for module in model.modules():
        is_random = isinstance(module, RANDOM) or type(module).__name__ in RANDOM_NAMES
        module.training = not (is_random or isinstance(module, NormBase))


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Put modes, buffers and plain numbers of all modules back afterwards; draw no pictures."""
    modules = list(model.modules())
    numbers = [_numbers_of(module) for module in modules]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    for module, of_module in zip(modules, numbers, strict=True):
        if "vis_period" in of_module:
            module.__dict__["vis_period"] = 0
        if isinstance(module, DenseDetector):
            # Detectron2's running mean, which no checkpoint holds: from its start for each image.
            module.__dict__.pop("loss_normalizer", None)
    try:
        yield
    finally:
        for module, of_module in zip(modules, numbers, strict=True):
            for name in _numbers_of(module).keys() - of_module.keys():
                del module.__dict__[name]
            module.__dict__.update(of_module)
        for buffer, value in buffers:
            buffer.copy_(value)


def _numbers_of(module: nn.Module) -> dict[str, Any]:
    return {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float))}


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
