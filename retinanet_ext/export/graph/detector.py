"""What every file begins with, and what a detector of one's own gives to be put into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from ...errors import InputError
from .network import plain_copy
from .nms import Nms, nms_by_torchvision

__all__ = ["HEADS", "ExportableDetector"]

HEADS = ("raw", "decoded", "nms")
"""How far the file goes: the head's outputs, candidates, or detections."""


class ExportableDetector(nn.Module):
    """Backbone, head and decoder of a detector as plain tensors in and out.

    Takes pixels (N, C, H, W), 0 to 255, in ``INPUT.FORMAT``, of any size; normalises them, and pads
    to the right and below as the detector does. A subclass makes of the head's outputs, by
    ``head``:

    - raw: outputs of its own, which somebody has to decode;
    - decoded: ``boxes`` (N, T, 4), ``scores`` (N, T), ``classes`` (N, T), before NMS;
    - nms: ``boxes`` (N, D, 4), ``scores`` (N, D), ``classes`` (N, D), ``count`` (N,).

    Boxes are XYXY in pixels of the input; a score of 0 is no box. T and D follow from the config,
    so that a graph of it takes any picture.

    A meta-architecture that is no RetinaNetExt is exported if it has two methods:
    ``export_graph(head)``, which returns one of these, and ``exported_detections(inputs, head)``,
    which returns by its own code what the file is compared with: Instances in pixels of the
    network's input.
    """

    heads: Sequence[str] = HEADS
    """Those of :data:`HEADS` that there are."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, head: str):
        """
        Args:
            model: a DenseDetector of Detectron2's; left as it is.
            head: one of :attr:`heads`.

        Raises:
            InputError: there is no such head.
        """
        super().__init__()
        if head not in self.heads:
            raise InputError(
                f"--head {head} is not for {type(model).__name__}, whose outputs only its own code "
                f"decodes; pass --head {' or '.join(self.heads)}"
            )
        self.backbone, self.dense_head = plain_copy(model.backbone), plain_copy(model.head)
        self.in_features = list(model.head_in_features)
        self.divisor = max(1, int(model.backbone.size_divisibility or 1))
        self.head = head
        self.register_buffer("mean", model.pixel_mean.detach().float().clone())
        self.register_buffer("std", model.pixel_std.detach().float().clone())
        self.nms: Nms = nms_by_torchvision

    @property
    def output_names(self) -> list[str]:
        """Of what :meth:`forward` returns."""
        return ["boxes", "scores", "classes", *(["count"] if self.head == "nms" else [])]

    def sections(self, model: Any, cfg: CfgNode) -> dict[str, Any]:
        """What ``model.json`` has to say of the way to detections: ``decode``, and more.

        ``decode`` has at least score_thresh, nms (per_class or class_agnostic), nms_thresh (from 1
        on nothing is suppressed) and max_detections.

        Args:
            model: that this was made of.
            cfg: of the model.
        """
        raise NotImplementedError

    def decode(self, returned: Any) -> tuple[Tensor, ...]:
        """The outputs of the file, in the order of :attr:`output_names`.

        Args:
            returned: by the model's head.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(self._padded((images.float() - self.mean) / self.std))
        return self.decode(self.dense_head([maps[name] for name in self.in_features]))

    def _padded(self, images: Tensor) -> Tensor:
        """Zeros to the right and below, to multiples of the divisor, by arithmetic with symbols."""
        divisor = self.divisor
        height, width = images.shape[-2:]
        down = (height + divisor - 1) // divisor * divisor - height
        right = (width + divisor - 1) // divisor * divisor - width
        return F.pad(images, (0, right, 0, down))
