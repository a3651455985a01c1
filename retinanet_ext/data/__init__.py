"""Datasets: their names in Detectron2's catalogs, checks before training, the quickstart's images.

Knows nothing of modeling.
"""

from .augment import AugmentingMapper, build_train_mapper
from .datasets.by_path import register_extra_datasets
from .datasets.check import check_datasets, check_num_classes
from .datasets.class_counts import check_dataset_dicts, count_classes
from .datasets.register import load_class_names, register_builtin_datasets, register_coco_dataset
from .loading.build_stream import build_train_stream
from .loading.ignore_mapper import IgnoreRegionMapper
from .loading.stream import TrainStream
from .quickstart.dataset import ensure_quickstart

__all__ = [
    "AugmentingMapper",
    "IgnoreRegionMapper",
    "TrainStream",
    "build_train_mapper",
    "build_train_stream",
    "check_dataset_dicts",
    "check_datasets",
    "check_num_classes",
    "count_classes",
    "ensure_quickstart",
    "load_class_names",
    "register_builtin_datasets",
    "register_coco_dataset",
    "register_extra_datasets",
]
