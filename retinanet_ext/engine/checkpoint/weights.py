"""Old place of `retinanet_ext.weights.reading`; kept for scripts."""

from __future__ import annotations

from ...weights.reading import (
    CLASSES_KEY,
    WeightsError,
    read_torch,
    read_weights,
    save_weights,
)

__all__ = ["CLASSES_KEY", "WeightsError", "read_torch", "read_weights", "save_weights"]
