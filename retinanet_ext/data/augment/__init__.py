"""Augmentation by config: ``INPUT.AUG``."""

from .entries import ENTRIES, default_augmentations
from .mapper import AugmentingMapper, build_train_mapper, needs_dataset
from .parse import check_augmentations, parse_augmentations
from .sample import Sample

__all__ = [
    "ENTRIES",
    "AugmentingMapper",
    "Sample",
    "build_train_mapper",
    "check_augmentations",
    "default_augmentations",
    "needs_dataset",
    "parse_augmentations",
]
