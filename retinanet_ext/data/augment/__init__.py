"""Augmentation by config: ``INPUT.AUG``."""

from .ops import ENTRIES, default_augmentations
from .parse import check_augmentations, parse_augmentations
from .sample import Sample
from .train_mapper import AugmentingMapper, build_train_mapper, needs_dataset

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
