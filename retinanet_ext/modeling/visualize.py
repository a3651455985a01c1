"""Pictures of a training run for its event storage."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.utils.events import get_event_storage, has_event_storage


def visualize_periodically(
    detector: DenseDetector, batched_inputs: list[dict[str, Any]], period: int
) -> None:
    """Draw ground truth and detections of the first image, as evaluation would see it.

    Args:
        detector: in training.
        batched_inputs: of this iteration.
        period: every so many iterations; 0 is never.
    """
    if period <= 0 or not has_event_storage() or get_event_storage().iter % period != 0:
        return
    in_training = [module for module in detector.modules() if module.training]
    detector.eval()
    try:
        with torch.no_grad():
            # Not by a call, which would tell the hooks on the detector of a batch that is none.
            outputs = detector.forward([{"image": batched_inputs[0]["image"]}])
    finally:
        for module in in_training:  # a part that its user keeps in evaluation mode stays there
            module.training = True
    detector.visualize_training(batched_inputs[:1], [outputs[0]["instances"].to("cpu")])
