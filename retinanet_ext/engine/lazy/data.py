"""Images of training and evaluation as LazyCalls."""

from __future__ import annotations

from typing import Any

import detectron2.data.transforms as T
from detectron2.config import CfgNode
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)

from ...data.loading.ignore_mapper import IgnoreRegionMapper, wants_ignored
from ...data.loading.pixels import PictureMapper
from ...errors import InputError
from ...evaluation.coco import COCODetectionEvaluator

DATA_KEYS = (
    "DATALOADER.ASPECT_RATIO_GROUPING",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
    "DATALOADER.NUM_WORKERS",
    "DATASETS.TEST",
    "DATASETS.TRAIN",
    "INPUT.FORMAT",
    "INPUT.MAX_SIZE_TEST",
    "INPUT.MAX_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MIN_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING",
    "INPUT.RANDOM_FLIP",
    "INPUT.SIXTEEN_BIT",
    "SOLVER.IMS_PER_BATCH",
    "TEST.DETECTIONS_PER_IMAGE",
)


def lazy_dataloader(cfg: CfgNode) -> Any:
    """``train``, and for one test dataset ``test`` and ``evaluator``.

    Raises:
        InputError: for several test datasets, of which the tool evaluates one.
    """
    found = {"train": _train(cfg)}
    if len(cfg.DATASETS.TEST) > 1:
        raise InputError(
            f"DATASETS.TEST is {tuple(cfg.DATASETS.TEST)}, but Detectron2's LazyConfig tool "
            "evaluates one dataset; name one"
        )
    for name in cfg.DATASETS.TEST:
        found["test"] = _test(cfg, name)
        found["evaluator"] = L(COCODetectionEvaluator)(
            dataset_name="${..test.dataset.names}",
            max_dets_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        )
    return found


def _train(cfg: CfgNode) -> Any:
    node, names = cfg.INPUT, list(cfg.DATASETS.TRAIN)
    augmentations = [
        L(T.ResizeShortestEdge)(
            short_edge_length=list(node.MIN_SIZE_TRAIN),
            max_size=node.MAX_SIZE_TRAIN,
            sample_style=node.MIN_SIZE_TRAIN_SAMPLING,
        )
    ]
    if node.RANDOM_FLIP != "none":
        horizontal = node.RANDOM_FLIP == "horizontal"
        augmentations.append(L(T.RandomFlip)(horizontal=horizontal, vertical=not horizontal))
    return L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(
            names=names[0] if len(names) == 1 else names,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        ),
        mapper=L(IgnoreRegionMapper if wants_ignored(cfg) else PictureMapper)(
            is_train=True,
            augmentations=augmentations,
            image_format=node.FORMAT,
            sixteen_bit=node.SIXTEEN_BIT,
        ),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def _test(cfg: CfgNode, name: str) -> Any:
    node = cfg.INPUT
    resize = L(T.ResizeShortestEdge)(
        short_edge_length=node.MIN_SIZE_TEST, max_size=node.MAX_SIZE_TEST
    )
    return L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names=name, filter_empty=False),
        mapper=L(PictureMapper)(
            is_train=False,
            augmentations=[resize],
            image_format="${...train.mapper.image_format}",
            sixteen_bit="${...train.mapper.sixteen_bit}",
        ),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
