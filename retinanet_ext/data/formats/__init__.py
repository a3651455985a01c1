"""Annotation formats: COCO json, Pascal VOC xml, YOLO txt and CSV, all read into one table."""

from .cache import default_cache_dir, read_cached
from .data_yaml import has_val, yolo_subsets
from .detect import FORMATS, detect, split_folders
from .table import BoxTable, Inputs, Source

__all__ = [
    "FORMATS",
    "BoxTable",
    "Inputs",
    "Source",
    "default_cache_dir",
    "detect",
    "has_val",
    "read_cached",
    "split_folders",
    "yolo_subsets",
]
