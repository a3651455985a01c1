"""From pixels to detections: the evaluation's own resizing, batches of one padded size."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.structures import Instances
from torch import nn

from ..data.loading.pixels import PictureMapper

__all__ = ["Detector", "Fitting", "PlainDetector", "is_out_of_memory"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Detector(Protocol):
    """Finds objects in pictures of one batch."""

    def batch_key(self, pixels: np.ndarray) -> Any:
        """Pictures with equal keys may be in one batch.

        Args:
            pixels: (H, W, C) uint8.
        """

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Instances]:
        """Detections of each picture, on the CPU, in pixels of the picture.

        Args:
            pictures: (H, W, C) uint8 in ``INPUT.FORMAT``, with one batch key.
        """


class PlainDetector:
    """Each picture once, as the evaluation sees it."""

    def __init__(self, cfg: CfgNode, model: nn.Module):
        """
        Args:
            cfg: reads ``INPUT``, for the resizing of the evaluation.
            model: a detector of Detectron2's interface, in evaluation mode.
        """
        self.model = model
        # The mapper of the evaluation knows its resizing, so nothing is read twice from the config.
        self._augmentations = PictureMapper(cfg, is_train=False).augmentations
        backbone: Any = getattr(model, "backbone", None)
        self._divisor = max(1, int(getattr(backbone, "size_divisibility", 1) or 1))
        self.lock = threading.Lock()  # compiled models and CUDA graphs know one caller at a time

    def batch_key(self, pixels: np.ndarray) -> tuple[int, int]:
        """Height and width of the network's input.

        A larger padding would change detections near the border: only pictures that are padded to
        the same size give in a batch what each gives by itself.
        """
        transform: Any = self._augmentations.augs[0].get_transform(pixels)
        height, width = pixels.shape[:2]
        resized: Any = getattr(transform, "new_h", height), getattr(transform, "new_w", width)
        return self._padded(resized[0]), self._padded(resized[1])

    def _padded(self, side: int) -> int:
        return math.ceil(side / self._divisor) * self._divisor

    def prepare(self, pixels: np.ndarray) -> dict[str, Any]:
        """The model's input, as the evaluation's mapper makes it of the same pixels."""
        aug_input = T.AugInput(pixels)
        self._augmentations(aug_input)
        image = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        return {
            "image": torch.as_tensor(image),
            "height": pixels.shape[0],
            "width": pixels.shape[1],
        }

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Instances]:
        """See :class:`Detector`."""
        inputs = [self.prepare(pixels) for pixels in pictures]
        with self.lock, torch.no_grad():
            outputs = self.model(inputs)
        return [output["instances"].to("cpu") for output in outputs]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch says that memory is lacking, that of a GPU or of the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


class Fitting:
    """Calls a function with a batch, or with parts of it, the largest that fit into memory.

    What did not fit is not tried again.

    Attributes:
        most: items that may fit at once; None as long as everything did.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def __call__(
        self, compute: Callable[[Sequence[Item]], list[Result]], batch: Sequence[Item]
    ) -> list[Result]:
        """The results of ``compute`` for all items of the batch, in their order.

        Raises:
            RuntimeError: not even one item fits.
        """
        results: list[Result] = []
        while len(results) < len(batch):
            part = batch[len(results) :][: self.most]
            try:
                results += compute(part)
                continue
            except RuntimeError as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
            # Out of the except clause, whose error holds what was computed so far.
            self.most = len(part) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return results
