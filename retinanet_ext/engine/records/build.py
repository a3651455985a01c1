"""The writers of a run's curves."""

from __future__ import annotations

import importlib.util
import os

from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, JSONWriter
from detectron2.utils.file_io import PathManager

from ..progress import ProgressLine
from .remote_writers import build_remote_writers
from .writers import MetricsFile, TensorBoard

__all__ = ["build_writers"]


def build_writers(cfg: CfgNode, max_iter: int) -> list[EventWriter]:
    """A progress line, ``metrics.json``, TensorBoard where it is installed, and ``WRITERS``.

    Args:
        cfg: reads OUTPUT_DIR, which is made, SOLVER.IMS_PER_BATCH and WRITERS.
        max_iter: where training ends.
    """
    PathManager.mkdirs(cfg.OUTPUT_DIR)
    path = os.path.join(cfg.OUTPUT_DIR, "metrics.json")
    writers = [
        # First, since it adds the remaining time and the speed.
        ProgressLine(max_iter, cfg.SOLVER.IMS_PER_BATCH),
        JSONWriter(path) if "://" in cfg.OUTPUT_DIR else MetricsFile(path),
    ]
    if importlib.util.find_spec("tensorboard"):
        writers.append(TensorBoard(cfg.OUTPUT_DIR))
    return [*writers, *build_remote_writers(cfg)]
