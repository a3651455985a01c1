"""What is said of a step whose loss is not finite: where it was, and what to try."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode

from ...errors import TrainingFailed

__all__ = ["NonFiniteLoss", "RankReport", "describe_nonfinite", "files_of", "nonfinite_hint"]

SHOWN_FILES = 3
IMAGES_OF_BASE_LR = 16  # Detectron2's and the paper's BASE_LR 0.01 is meant for so many


class NonFiniteLoss(TrainingFailed, FloatingPointError):
    """A loss or a gradient is not finite."""


@dataclass(frozen=True)
class RankReport:
    """What one process saw of a step whose losses are not finite in some process.

    Attributes:
        rank: of the process.
        numbers: losses by name.
        files: image files of its batch.
        folder: of its report; "" where it has none.
    """

    rank: int
    numbers: dict[str, float]
    files: list[str]
    folder: str


def files_of(batch: Sequence[dict[str, Any]]) -> list[str]:
    """The image files of a batch; the ids of images that come from no file."""
    return [str(x.get("file_name", x.get("image_id", "?"))) for x in batch]


def describe_nonfinite(iteration: int, ranks: Sequence[RankReport]) -> str:
    """Iteration, losses, images, report, and the command that repeats the step; no full stop."""
    parts = []
    for trouble in ranks:
        bad = {k: v for k, v in trouble.numbers.items() if not math.isfinite(v)}
        if not bad:
            continue
        where = f" in process {trouble.rank}" if len(ranks) > 1 else ""
        what = ", ".join(f"{name} is {value}" for name, value in bad.items())
        more = len(trouble.files) - SHOWN_FILES
        files = ", ".join(trouble.files[:SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")
        parts.append(f"{what}{where}, with the images {files}")
    text = f"iteration {iteration}: {'; '.join(parts)}"
    folders = [trouble.folder for trouble in ranks if trouble.folder]
    if folders:
        snapshot = os.path.join(folders[0], "snapshot.pth")
        text += (
            f". Report: {folders[0]}; to repeat the step: python -m retinanet_ext replay-step "
            f"{snapshot}"
        )
    return text


def nonfinite_hint(cfg: CfgNode) -> str:
    """What to try against losses that are not finite, with the values of this run."""
    solver = cfg.SOLVER
    ways = [f"lower SOLVER.BASE_LR (now {solver.BASE_LR:g})"]
    fitting = 0.01 * solver.IMS_PER_BATCH / IMAGES_OF_BASE_LR
    if solver.get("OPTIMIZER", "SGD") == "SGD" and solver.BASE_LR / fitting > 1.01:
        ways[0] += (
            f": 0.01 is meant for {IMAGES_OF_BASE_LR} images, so {fitting:g} for IMS_PER_BATCH "
            f"{solver.IMS_PER_BATCH}"
        )
    ways.append(f"warm up longer (SOLVER.WARMUP_ITERS, now {solver.WARMUP_ITERS})")
    if not solver.CLIP_GRADIENTS.ENABLED:
        ways.append("clip gradients (SOLVER.CLIP_GRADIENTS.ENABLED True)")
    if solver.AMP.ENABLED:
        half = solver.AMP.get("PRECISION", "float16") == "float16"
        ways.append("set SOLVER.AMP.PRECISION bfloat16" if half else "set SOLVER.AMP.ENABLED False")
    return (
        f"Mostly the learning rate is too high: {'; '.join(ways)}. If it is single images, fix "
        "them, or leave their batches out with SOLVER.MAX_SKIPPED_BATCHES"
    )
