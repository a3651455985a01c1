"""Files of the two detectors that are no Detectron2 models; read without running code of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinanet_ext import files

from .viola_jones import Features, Stumps, ViolaJones

__all__ = ["cascade_of", "load", "save", "state_of"]


def state_of(model: ViolaJones) -> dict[str, Any]:
    """As tensors, which PyTorch reads without running code."""

    def stumps(x: Stumps) -> list[Tensor]:
        f = x.features
        arrays = (f.channel, f.y, f.x, f.weight, x.threshold, x.weight)
        return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]

    return {
        "stages": [(stumps(stage), least) for stage, least in model.stages],
        "classes": [stumps(x) for x in model.classes],
        "largest": model.largest,
    }


def cascade_of(state: dict[str, Any]) -> ViolaJones:
    def stumps(tensors: Sequence[Tensor]) -> Stumps:
        *features, threshold, weight = (x.numpy() for x in tensors)
        return Stumps(Features(*features), threshold, weight)

    stages = [(stumps(x), float(least)) for x, least in state["stages"]]
    return ViolaJones(stages, [stumps(x) for x in state["classes"]], state["largest"])


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.written_whole(str(path)) as new:
        torch.save(content, new)


def load(path: Path) -> dict[str, Any]:
    """What is in a file, {} where there is none."""
    if not path.is_file():
        return {}
    return torch.load(path, map_location="cpu", weights_only=True)
