"""Masks in COCO's run-length code."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_codes

__all__ = ["with_masks"]


def with_masks(rows: list[dict[str, Any]], masks: np.ndarray | None) -> list[dict[str, Any]]:
    """The rows of detections with their masks as ``segmentation``, as the evaluation writes them.

    Args:
        rows: N of them.
        masks: (N, H, W) bool; None leaves the rows as they are.
    """
    if masks is None or not rows:
        return rows
    codes = mask_codes.encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8))
    return [
        {**row, "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")}}
        for row, code in zip(rows, codes, strict=True)
    ]
