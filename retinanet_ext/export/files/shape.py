"""The sizes of input that a file takes, and the example that it is traced with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["InputShape"]

# Two: of one image, PyTorch's tracers conclude that there is always one.
EXAMPLE_BATCH = 2


@dataclass(frozen=True)
class InputShape:
    """Batch, height and width of a file's input; None is any.

    Attributes:
        channels: of the pictures.
        batch, height, width: see above.
        example: height and width to trace with, where the file takes any.
    """

    channels: int
    batch: int | None = None
    height: int | None = None
    width: int | None = None
    example: tuple[int, int] = (256, 320)

    def tensor(self) -> torch.Tensor:
        """Pixels of the example, (N, C, H, W) float32."""
        size = self.height or self.example[0], self.width or self.example[1]
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch or EXAMPLE_BATCH, self.channels, *size)
        return torch.rand(shape, generator=generator) * 255

    def axes(self, of_any: Any) -> dict[int, Any]:
        """The axes of any length: axis -> ``of_any``."""
        lengths = {0: self.batch, 2: self.height, 3: self.width}
        return {axis: of_any for axis, length in lengths.items() if length is None}
