"""What PyTorch computes of the same input, by the detector itself and not by what was exported."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances

from ..inference import Predictor
from ..structures import HeadOutputs, architecture_of

__all__ = ["Reference", "instances_of", "plain_predictor"]


def plain_predictor(cfg: CfgNode) -> Predictor:
    """The predictor of a config without speedups, in float32 on the CPU.

    Its detections are those of the run within rounding, and it is the one to be told from the file.
    """
    cfg = cfg.clone()
    cfg.defrost()
    speedups = cfg.MODEL.SPEEDUPS
    # A detector with a graph of its own has no speedups, and would refuse the keys.
    if not hasattr(architecture_of(cfg), "export_graph"):
        speedups.FOLD_FROZEN_BN = speedups.WINOGRAD = speedups.COMPILE = False
        speedups.CHANNELS_LAST, speedups.AUTOCAST = "none", ""
    cfg.MODEL.DEVICE = "cpu"
    cfg.TEST.AUG.ENABLED = False
    cfg.TEST.TILES.SIZE = ()
    cfg.TEST.MERGE.KIND, cfg.TEST.MERGE.THRESH = "", None
    return Predictor(cfg)


class Reference:
    """A detector of PyTorch, asked for what an exported file gives."""

    def __init__(self, predictor: Predictor):
        """
        Args:
            predictor: of :func:`plain_predictor`.
        """
        self.predictor = predictor
        self.model: Any = predictor.model

    @torch.no_grad()
    def normalized(self, images: np.ndarray) -> np.ndarray:
        """What the backbone gets of pixels (N, C, H, W)."""
        return self.model.preprocess_image(_inputs(images)).tensor.numpy()

    @torch.no_grad()
    def raw(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The head's outputs by name, as of the head ``raw``."""
        maps = self.model.backbone(self.model.preprocess_image(_inputs(images)).tensor)
        returned = self.model.head([maps[name] for name in self.model.head_in_features])
        outputs = HeadOutputs.of(returned, type(self.model.head).__name__)
        kinds = {"logits": outputs.logits, "deltas": outputs.deltas, **outputs.named}
        return {
            f"{kind}_{i}": level.numpy()
            for kind, levels in kinds.items()
            if kind in ("logits", "deltas", "quality") and levels is not None
            for i, level in enumerate(levels)
        }

    def candidates(self, images: np.ndarray) -> list[Instances]:
        """Boxes before NMS, in pixels of the input."""
        return self._found(images, "decoded")

    def detections(self, images: np.ndarray) -> list[Instances]:
        """Detections in pixels of the input, not clipped."""
        return self._found(images, "nms")

    @torch.no_grad()
    def _found(self, images: np.ndarray, head: str) -> list[Instances]:
        inputs = _inputs(images)
        if hasattr(self.model, "exported_detections"):
            return self.model.exported_detections(inputs, head)
        candidates = self.model.candidates(inputs)
        if head == "decoded":
            return candidates
        return [self.model.decoder.suppress(x) for x in candidates]


def _inputs(images: np.ndarray) -> list[dict[str, Any]]:
    return [{"image": torch.from_numpy(x)} for x in images]


def instances_of(outputs: dict[str, np.ndarray], size: tuple[int, int]) -> list[Instances]:
    """Outputs of the heads ``decoded`` and ``nms``, without the rows that stand for nothing."""
    found = []
    for boxes, scores, classes in zip(
        *(outputs[name] for name in ("boxes", "scores", "classes")), strict=True
    ):
        kept = scores > 0
        found.append(
            Instances(
                size,
                pred_boxes=Boxes(torch.from_numpy(boxes[kept])),
                scores=torch.from_numpy(scores[kept]),
                pred_classes=torch.from_numpy(classes[kept]),
            )
        )
    return found
