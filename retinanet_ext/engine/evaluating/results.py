"""What a run's results are of, and what they should be."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ...data.datasets.register import load_class_names
from ...errors import TrainingFailed

__all__ = ["class_names", "verify"]


def class_names(datasets: Sequence[str]) -> Sequence[str]:
    """Names of the classes of a run's datasets, which agree; () if there are none."""
    return (load_class_names(datasets[0]) if datasets else None) or ()


def verify(cfg: CfgNode, results: OrderedDict[str, Any]) -> None:
    """Compare with ``TEST.EXPECTED_RESULTS`` in the main process; a miss ends it with code 1.

    Raises:
        TrainingFailed: they are set, but nothing was evaluated.
    """
    if not comm.is_main_process() or not cfg.TEST.EXPECTED_RESULTS:
        return
    if not results:
        raise TrainingFailed(
            "TEST.EXPECTED_RESULTS is set but nothing was evaluated: DATASETS.TEST is empty"
        )
    verify_results(cfg, results)
