"""What is put into the file: from the pixels of a batch to the head's outputs or detections."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...structures import HeadOutputs
from .decode import StaticDecoder
from .network import plain_copy
from .nms import Nms, nms_by_torchvision

__all__ = ["HEADS", "ExportableRetinaNet"]

HEADS = ("raw", "decoded", "nms")
"""How far the file goes: the head's outputs, candidates, or detections."""


class ExportableRetinaNet(nn.Module):
    """Backbone, head and decoder of a detector as plain tensors in and out.

    Takes pixels (N, C, H, W), 0 to 255, in ``INPUT.FORMAT``, of any size; normalises them, and pads
    to the right and below as the detector does. Gives, by ``head``:

    - raw: ``logits_0``, ``deltas_0`` and, where there is one, ``quality_0``, of each level, see
      :class:`~retinanet_ext.structures.HeadOutputs`;
    - decoded: ``boxes`` (N, T, 4), ``scores`` (N, T), ``classes`` (N, T), before NMS;
    - nms: ``boxes`` (N, D, 4), ``scores`` (N, D), ``classes`` (N, D), ``count`` (N,).

    Boxes are XYXY in pixels of the input.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, head: str):
        """
        Args:
            model: a :class:`~retinanet_ext.modeling.RetinaNetExt`; left as it is.
            head: one of :data:`HEADS`.
        """
        super().__init__()
        self.backbone, self.dense_head = plain_copy(model.backbone), plain_copy(model.head)
        self.in_features = list(model.head_in_features)
        self.divisor = max(1, int(model.backbone.size_divisibility or 1))
        self.head = head
        self.register_buffer("mean", model.pixel_mean.detach().float().clone())
        self.register_buffer("std", model.pixel_std.detach().float().clone())
        generator = model.anchor_generator
        self.decoder = None
        if head != "raw":
            self.decoder = StaticDecoder(
                model.decoder,
                list(generator.cell_anchors),
                [int(x) for x in generator.strides],
                generator.offset,
            )
        self.nms: Nms = nms_by_torchvision
        self.has_quality = bool(getattr(model, "quality_branch", ""))

    @property
    def output_names(self) -> list[str]:
        """Of what :meth:`forward` returns."""
        if self.head == "raw":
            kinds = ("logits", "deltas", *(["quality"] if self.has_quality else []))
            return [f"{kind}_{i}" for i in range(len(self.in_features)) for kind in kinds]
        return ["boxes", "scores", "classes", *(["count"] if self.head == "nms" else [])]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        logits, deltas, quality = self._heads(images)
        if self.decoder is None:
            kinds = (logits, deltas, *([] if quality is None else [quality]))
            return tuple(x for level in zip(*kinds, strict=True) for x in level)
        found = self.decoder.candidates(logits, deltas, quality)
        return found if self.head == "decoded" else self.decoder.detections(*found, self.nms)

    def _heads(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
        images = (images.float() - self.mean) / self.std
        maps = self.backbone(self._padded(images))
        returned = self.dense_head([maps[name] for name in self.in_features])
        outputs = HeadOutputs.of(returned, type(self.dense_head).__name__)
        assert outputs.logits is not None and outputs.deltas is not None
        quality = outputs.named.get("quality") if self.has_quality else None
        return outputs.logits, outputs.deltas, quality

    def _padded(self, images: Tensor) -> Tensor:
        """Zeros to the right and below, to multiples of the divisor, by arithmetic with symbols."""
        divisor = self.divisor
        height, width = images.shape[-2:]
        down = (height + divisor - 1) // divisor * divisor - height
        right = (width + divisor - 1) // divisor * divisor - width
        return F.pad(images, (0, right, 0, down))
