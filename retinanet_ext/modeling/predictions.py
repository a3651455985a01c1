"""What the head says of the anchors while these are being assigned.

Letters: N images, L levels, Hi x Wi locations of level i, A anchors per location, K classes, R
anchors over all levels, M classes that are asked for, B numbers per box.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Boxes
from torch import Tensor

from ..errors import InputError
from ..losses.precision import at_least_float32
from ..protocols import BoxCoder
from ..structures import HeadOutputs
from .coders import decode_boxes, num_box_outputs


def needs_predictions(assigner: Any) -> bool:
    """Whether an assigner is called with the head's predictions, too."""
    return bool(getattr(assigner, "needs_predictions", False))


class HeadPredictions:
    """Scores and boxes of the anchors of N images, without gradient; computed when asked for."""

    def __init__(
        self,
        outputs: HeadOutputs,
        anchors: list[Boxes],
        coder: BoxCoder,
        num_classes: int,
        strides: Tensor | None = None,
    ):
        """
        Args:
            outputs: of the head, with logits and deltas as a whole.
            anchors: L Boxes (Hi*Wi*A, 4).
            coder: an entry of BOX_CODER_REGISTRY.
            num_classes: K.
            strides: (R,) of the anchors, for a coder that needs them.

        Raises:
            ValueError: if the head gave neither, or a box for each class.
        """
        if outputs.logits is None or outputs.deltas is None:
            raise ValueError("predictions need the head's logits and deltas as a whole")
        self._logits = [x.detach() for x in outputs.logits]
        self._deltas = [x.detach() for x in outputs.deltas]
        self._anchors = [x.tensor for x in anchors]
        self._coder = coder
        self._num_classes = num_classes
        self._strides = strides
        self._boxes: dict[int, Tensor] = {}
        numbers = num_box_outputs(coder)
        for logits, deltas in zip(self._logits, self._deltas, strict=True):
            if deltas.shape[1] * num_classes != logits.shape[1] * numbers:
                raise InputError(
                    f"the assigner needs one predicted box per anchor, but the head gives "
                    f"{deltas.shape[1]} numbers for boxes at {logits.shape[1] // num_classes} "
                    "anchors; set MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG to True"
                )

    def scores(self, image: int, classes: Tensor) -> Tensor:
        """Probabilities (R, M), at least float32, that each anchor shows an object of a class.

        Args:
            image: in [0, N).
            classes: (M,) int64 in [0, K).
        """
        found = []
        for level in self._logits:
            of_classes = level[image].unflatten(0, (-1, self._num_classes))[:, classes]
            found.append(of_classes.permute(2, 3, 0, 1).flatten(0, 2))
        return at_least_float32(torch.cat(found)).sigmoid()

    def boxes(self, image: int) -> Tensor:
        """Predicted boxes (R, 4) of an image, absolute XYXY pixels, at least float32.

        Args:
            image: in [0, N).
        """
        if image not in self._boxes:
            numbers = num_box_outputs(self._coder)
            rows = torch.cat([x[image].permute(1, 2, 0).reshape(-1, numbers) for x in self._deltas])
            self._boxes[image] = decode_boxes(
                self._coder, at_least_float32(rows), torch.cat(self._anchors), self._strides
            )
        return self._boxes[image]
