"""The curves of a run in its checkpoint: Detectron2's event storage as plain tensors, and back.

Without it a resumed run would lose its medians, its remaining time and what was not yet written.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.utils.events import EventStorage

__all__ = ["HISTORY_LENGTH", "restore_storage", "storage_state"]

HISTORY_LENGTH = 1000  # values per scalar; no median, mean or remaining time looks further back


def storage_state(storage: EventStorage) -> dict[str, Any]:
    """Return the scalars of ``storage`` for a checkpoint.

    Pictures and histograms, which only wait for TensorBoard, are left out.

    Returns:
        ``{"scalars": {name: {"values": (n,) float64, "iterations": (n,) int64, "smooth": bool}}}``
        with the last ``n <= HISTORY_LENGTH`` values of each scalar, oldest first, in the order in
        which the scalars first came.
    """
    hints, histories = storage.smoothing_hints(), storage.histories()
    scalars = {}
    for name in storage.latest():
        pairs = histories[name].values()[-HISTORY_LENGTH:]
        values, iterations = zip(*pairs, strict=True)
        scalars[name] = {
            "values": torch.tensor(values, dtype=torch.float64),
            "iterations": torch.tensor(iterations, dtype=torch.int64),
            "smooth": bool(hints[name]),
        }
    return {"scalars": scalars}


def restore_storage(storage: EventStorage, state: dict[str, Any]) -> None:
    """Put what :func:`storage_state` returned into ``storage``, which should be new.

    Call it before anything of the resumed run is put there, and outside of any name scope. The
    storage's iteration stays as it is.
    """
    for name, scalar in state.get("scalars", {}).items():
        smooth = scalar["smooth"]
        pairs = zip(scalar["values"].tolist(), scalar["iterations"].tolist(), strict=True)
        for value, iteration in pairs:
            storage.put_scalar(name, value, smoothing_hint=smooth, cur_iter=iteration)
