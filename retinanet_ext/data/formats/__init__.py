"""Annotation formats: COCO json, Pascal VOC xml, YOLO txt and CSV, all read into one table."""

from .cache import default_cache_dir, read_cached
from .detect import FORMATS, detect
from .table import BoxTable, Inputs, Source
from .yolo import yolo_subsets

__all__ = [
    "FORMATS",
    "BoxTable",
    "Inputs",
    "Source",
    "default_cache_dir",
    "detect",
    "read_cached",
    "yolo_subsets",
]
