"""Datasets: their names in Detectron2's catalogs, checks before training, the quickstart's images.

Knows nothing of modeling.
"""

from .augment import AugmentingMapper, build_train_mapper
from .check import check_dataset_dicts, check_datasets, check_num_classes
from .class_counts import count_classes
from .extra import register_extra_datasets
from .mapper import IgnoreRegionMapper
from .register import load_class_names, register_builtin_datasets, register_coco_dataset
from .stream import TrainStream, build_train_stream
from .synthetic import ensure_quickstart

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
