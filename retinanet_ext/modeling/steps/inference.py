"""What the detector does in inference, from images to detections.

Letters: N images, L levels, A anchors per location, R anchors over all levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ...structures import HeadOutputs
from ..coders import strides_of_anchors
from ..postprocess.decode import DenseDecoder
from ..speedups.settings import Speedups


class InferenceSteps:
    """Base of the detector: its steps after the head, also one by one for tools."""

    anchor_generator: nn.Module
    decoder: DenseDecoder
    speedups: Speedups

    if TYPE_CHECKING:  # the detector's own
        backbone: nn.Module
        head: Any
        head_in_features: list[str]
        device: torch.device

        def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList: ...

        def _checked(self, returned: Any) -> HeadOutputs: ...

        def _float32(self) -> torch.autocast: ...

    def forward_inference(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: HeadOutputs | tuple[list[Tensor], list[Tensor]],
    ) -> list[Instances]:
        """Detections of N images in pixels of the network's input."""
        anchors = self.anchor_generator(features)
        with self._float32():
            outputs, strides = self._checked(predictions), self._strides(anchors)
            return self.decoder(anchors, outputs, images.image_sizes, **strides)

    def _strides(self, anchors: list[Boxes]) -> dict[str, Tensor]:
        """``strides`` (R,) of the anchors, or nothing where the box coder needs none."""
        coder = getattr(self.decoder, "box2box_transform", None)  # a decoder of one's own may not
        strides = strides_of_anchors(coder, anchors, self.anchor_generator)
        return {} if strides is None else {"strides": strides}

    @torch.no_grad()
    def candidates(self, batched_inputs: list[dict[str, Any]]) -> list[Instances]:
        """What :meth:`forward` chooses its detections from, before NMS, of N images.

        For detections out of several views of one image, which are suppressed together.

        Args:
            batched_inputs: as of :meth:`forward`; ``height`` and ``width`` are not read.

        Returns:
            N Instances in pixels of the network's input, see :meth:`DenseDecoder.candidates`.
        """
        images, anchors, outputs = self.raw_outputs(batched_inputs)
        with self._float32():
            sizes = images.image_sizes
            return self.decoder.candidates(anchors, outputs, sizes, **self._strides(anchors))

    @torch.no_grad()
    def raw_outputs(
        self, batched_inputs: list[dict[str, Any]]
    ) -> tuple[ImageList, list[Boxes], HeadOutputs]:
        """What :meth:`forward_inference` makes detections of: images, anchors, the head's outputs.

        Args:
            batched_inputs: as of :meth:`candidates`.
        """
        self.speedups.begin_step()
        with self.speedups.precision(self.device):
            images = self.preprocess_image(batched_inputs)
            maps = self.backbone(images.tensor)
            features = [maps[name] for name in self.head_in_features]
            outputs = self._checked(self.head(features))
        return images, self.anchor_generator(features), outputs
