"""The images of training and of evaluation, as the config asks for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.utils import comm

from ..data.augment import build_train_mapper, needs_dataset
from ..data.loading.bad_images import LoadOrFail, LoadOrSkip
from ..data.loading.build_stream import build_train_stream
from ..data.loading.pixels import PictureMapper
from ..data.loading.stream import TrainStream
from ..inference.build import is_pooled
from .launch.deferred import StartsWhole
from .progress import with_bar

__all__ = ["build_test_loader", "build_train_loader", "draw_run_seed"]

BAD_IMAGE_HINT = "fix or remove it, or set DATALOADER.ON_ERROR to skip"


def build_train_loader(cfg: CfgNode) -> TrainStream:
    """The stream of training images, with ``INPUT.AUG`` and ignored regions.

    ``DATALOADER.ON_ERROR`` says what happens to an image that cannot be loaded; an error names its
    file.
    """
    seed = draw_run_seed(cfg)
    fails = cfg.DATALOADER.ON_ERROR == "fail"
    if fails and not needs_dataset(cfg):
        fail = LoadOrFail(build_train_mapper(cfg), BAD_IMAGE_HINT)
        return build_train_stream(cfg, fail, seed=seed)
    dataset = DatasetFromList(
        get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        ),
        copy=False,
    )
    mapper = build_train_mapper(cfg, dataset)
    wrapped = LoadOrFail(mapper, BAD_IMAGE_HINT) if fails else LoadOrSkip(mapper, dataset)
    return build_train_stream(cfg, wrapped, dataset, seed)


def build_test_loader(cfg: CfgNode, dataset_name: str) -> Any:
    """Detectron2's test loader, with a progress bar on a terminal; errors name the file.

    Under ``TEST.TILES`` and ``TEST.AUG`` pictures are not resized.
    """
    mapper: Any = PictureMapper(cfg, is_train=False)
    if is_pooled(cfg):  # tiles and views are cut from the picture itself
        mapper = PictureMapper(cfg, is_train=False, augmentations=[])
    # Never skipped: the results would be those of another dataset.
    mapper = LoadOrFail(mapper, "fix it, or remove it from the set")
    loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
    return with_bar(StartsWhole(loader), f"evaluate {dataset_name}")


def draw_run_seed(cfg: CfgNode) -> int:
    """``SEED``, or where that is negative a random number, the same in all processes."""
    if cfg.SEED >= 0:
        return int(cfg.SEED)
    return int(comm.all_gather(int(np.random.randint(2**31)))[0])
