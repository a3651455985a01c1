"""The stream of training batches that a config asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.utils import comm
from torch.utils.data import IterableDataset

from ...errors import InputError
from ...random_state import random_state_kept
from .index_batches import find_wide
from .stream import TrainStream

__all__ = ["build_train_stream"]


def build_train_stream(
    cfg: CfgNode, mapper: Callable[[Any], Any], dataset: Any = None, seed: int = 0
) -> TrainStream:
    """The stream of ``DATASETS.TRAIN`` by the ``DATALOADER`` section, as Detectron2 reads it.

    The order of the images is that of Detectron2 0.6 without workers, where numpy's generator was
    seeded with ``seed`` just before; newer versions seed samplers with ``cfg.SEED``, which may be
    none, so they are given the number that 0.6 would have drawn.

    Args:
        cfg: the config; ``SOLVER.IMS_PER_BATCH`` is the batch of all processes.
        mapper: from a dataset dict to what the model trains on.
        dataset: the images of ``DATASETS.TRAIN`` where these were loaded before: a list of dataset
            dicts or a map-style dataset.
        seed: of the run, the same in all processes; at least 0.

    Raises:
        ValueError: the batch is no multiple of the number of processes, or the dataset has no
            indices.
    """
    world_size = comm.get_world_size()
    if cfg.SOLVER.IMS_PER_BATCH < 1 or cfg.SOLVER.IMS_PER_BATCH % world_size:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH} but the number of processes is "
            f"{world_size}; the batch is the total over all processes and must be a multiple of it"
        )
    if dataset is None:
        dataset = _load_dataset(cfg)
    if isinstance(dataset, IterableDataset):
        raise InputError(
            f"the dataset of DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)} is an IterableDataset, "
            "which cannot be resumed at an image; register a list or a map-style dataset"
        )
    group, is_wide = cfg.DATALOADER.ASPECT_RATIO_GROUPING, None
    if isinstance(dataset, list):
        if group:  # while it costs nothing: entries of a DatasetFromList are unpickled one by one
            is_wide = find_wide(dataset)
        dataset = DatasetFromList(dataset, copy=False)

    def make_sampler(seed: int) -> Iterable[int]:
        seeded = cfg.clone()
        seeded.defrost()
        with random_state_kept():
            np.random.seed(seed % 2**32)
            seeded.SEED = int(np.random.randint(2**31))
            np.random.seed(seed % 2**32)  # samplers that do not read SEED draw the same number
            loader = build_detection_train_loader(
                seeded, mapper=mapper, dataset=dataset, aspect_ratio_grouping=False, num_workers=0
            )
        return loader.dataset.sampler

    return TrainStream(
        dataset,
        mapper,
        make_sampler,
        cfg.SOLVER.IMS_PER_BATCH // world_size,
        seed=seed,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        group=group,
        is_wide=is_wide,
    )


def _load_dataset(cfg: CfgNode) -> Any:
    """The images of ``DATASETS.TRAIN``: a list of dataset dicts, or a registered dataset."""
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    return get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=keypoints,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )
