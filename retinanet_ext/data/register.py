"""Old place of `retinanet_ext.data.datasets.register`; kept for scripts."""

from __future__ import annotations

from .datasets.register import load_class_names, register_builtin_datasets, register_coco_dataset

__all__ = ["load_class_names", "register_builtin_datasets", "register_coco_dataset"]
