"""From pixels to detections: the evaluation's own resizing, batches of one padded size."""

from __future__ import annotations

import contextlib
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

from ..compat import is_compiled
from ..data.loading.pixels import PictureMapper
from ..errors import InputError
from ..modeling.speedups.hooked import is_hooked
from .allocator import fits_into_memory

__all__ = ["Detector", "Fitting", "PlainDetector", "is_out_of_memory"]

STATELESS = frozenset({"detectron2", "fvcore", "retinanet_ext", "torch", "torchvision"})
"""Packages whose modules keep nothing of a call for the next one."""

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
    """Each picture once, as the evaluation sees it.

    Attributes:
        model: the network and what makes detections of its outputs.
        lock: of the model, for one call at a time.
        overlaps: whether :meth:`detect` may be called by several threads at once.
    """

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

    @property
    def overlaps(self) -> bool:
        return calls_may_overlap(self.model)

    def batch_key(self, pixels: np.ndarray) -> tuple[int, int]:
        """Height and width of the network's input.

        A larger padding would change detections near the border: only pictures that are padded to
        the same size give in a batch what each gives by itself.
        """
        height, width = self._resized(pixels)
        return self._padded(height), self._padded(width)

    def _resized(self, pixels: np.ndarray) -> tuple[int, int]:
        transform: Any = self._augmentations.augs[0].get_transform(pixels)
        height, width = pixels.shape[:2]
        size: Any = getattr(transform, "new_h", height), getattr(transform, "new_w", width)
        return size

    def _padded(self, side: int) -> int:
        return math.ceil(side / self._divisor) * self._divisor

    def prepare(self, pixels: np.ndarray) -> dict[str, Any]:
        """The model's input, as the evaluation's mapper makes it of the same pixels.

        Raises:
            InputError: the machine's memory cannot hold it.
        """
        (height, width), (rows, columns) = pixels.shape[:2], self._resized(pixels)
        if not fits_into_memory(rows, columns):
            raise InputError(
                f"INPUT.MIN_SIZE_TEST makes {rows} x {columns} px of a picture of {height} x "
                f"{width} px, more than this machine's memory can hold; lower it (--size)"
            )
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
        return self._detect(pictures, self.lock)

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Instances]:
        """As a call, but without waiting for other calls; only where :attr:`overlaps` is true."""
        return self._detect(pictures, contextlib.nullcontext())

    def _detect(
        self, pictures: Sequence[np.ndarray], lock: contextlib.AbstractContextManager[Any]
    ) -> list[Instances]:
        inputs = [self.prepare(pixels) for pixels in pictures]
        with lock, torch.no_grad():
            outputs = self.model(inputs)
        return [output["instances"].to("cpu") for output in outputs]


def calls_may_overlap(model: nn.Module) -> bool:
    """Whether several threads may call a model in evaluation mode at once.

    So it is on the CPU for a model that is made only of modules that are known to leave nothing of
    a call behind. Hooks may, and programs of ``torch.compile`` know one caller at a time.
    """
    if torch.device(getattr(model, "device", "cpu")).type != "cpu":
        return False
    modules = list(model.modules())
    known = all(type(module).__module__.partition(".")[0] in STATELESS for module in modules)
    free = known and not is_hooked(*modules) and not any(map(is_compiled, modules))
    return free and getattr(model, "calls_may_overlap", True)


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
            self.most = len(part) // 2 if self.most is None else min(self.most, len(part) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return results
