"""Locations of a whole feature pyramid in one row, so that those around each are found fast.

Letters: N images, L levels, C channels, Ai anchors per location and Hi x Wi locations of level i,
P pairs of an image and an anchor, n rows of cells, a cell being a location of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class Canvas:
    """Cells of all images and levels in one row, each map with a border one cell wide.

    Borders make the neighbours of a cell lie at fixed distances, and stand for zero padding.
    """

    def __init__(self, num_images: int, sizes: Sequence[tuple[int, int]], device: torch.device):
        """
        Args:
            num_images: N.
            sizes: (Hi, Wi) of L levels.
        """
        self.num_images = num_images
        self.sizes = list(sizes)
        self.num_locations = num_images * sum(height * width for height, width in self.sizes)
        interiors, pitches = [], []
        for height, width in self.sizes:
            interior = torch.ones(num_images, height, width, dtype=torch.bool, device=device)
            interior = F.pad(interior, (1, 1, 1, 1))
            interiors.append(interior.flatten())
            pitches.append(torch.full_like(interiors[-1], width + 2, dtype=torch.int64))
        self.interior = torch.cat(interiors)
        self.pitch = torch.cat(pitches)

    def cells(
        self, images: Tensor, anchors: Tensor, num_anchors: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Cells (P,) of P images and anchors, and which anchor of its cell each is.

        Args:
            images: (P,) int64 in [0, N).
            anchors: (P,) int64; over the levels in order and, within a level, over (Hi, Wi, Ai)
                with Ai fastest.
            num_anchors: Ai of each level.
        """
        cells, slots = torch.zeros_like(anchors), torch.zeros_like(anchors)
        first_anchor = first_cell = 0
        for count, (height, width) in zip(num_anchors, self.sizes, strict=True):
            index = anchors - first_anchor
            location = index // count
            line = images * (height + 2) + location // width + 1
            cell = first_cell + line * (width + 2) + location % width + 1
            here = index >= 0  # of this level or, set right by the next ones, a later one
            cells = torch.where(here, cell, cells)
            slots = torch.where(here, index % count, slots)
            first_anchor += height * width * count
            first_cell += self.num_images * (height + 2) * (width + 2)
        return cells, slots

    def neighbours(self, cells: Tensor) -> Tensor:
        """The 3x3 cells (n, 9) around n cells, in the order of a kernel's entries."""
        step = torch.arange(-1, 2, device=cells.device)
        rows = step[:, None] * self.pitch[cells, None, None]
        return (cells[:, None, None] + rows + step).flatten(1)

    def inside(self, cells: Tensor) -> Tensor:
        """The different ones among ``cells`` that are no border, sorted."""
        wanted = torch.zeros_like(self.interior)
        wanted[cells.flatten()] = True
        return (wanted & self.interior).nonzero().flatten()

    def rows(self, listed: Tensor, cells: Tensor) -> Tensor:
        """Where each of ``cells`` stands in ``listed``, of length n; n if it does not."""
        position = listed.new_full(self.interior.shape, len(listed))
        position[listed] = torch.arange(len(listed), device=listed.device)
        return position[cells]

    def gather(self, features: Sequence[Tensor], cells: Tensor) -> Tensor:
        """What L maps (N, C, Hi, Wi) hold at n sorted cells that are no border: (n, C)."""
        rows, first_cell = [], 0
        for x, (height, width) in zip(features, self.sizes, strict=True):
            last_cell = first_cell + self.num_images * (height + 2) * (width + 2)
            start, stop = torch.searchsorted(
                cells, torch.tensor([first_cell, last_cell], device=cells.device)
            ).tolist()
            own = cells[start:stop] - first_cell
            line, column = own // (width + 2), own % (width + 2) - 1
            image, row = line // (height + 2), line % (height + 2) - 1
            table = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
            rows.append(table.index_select(0, (image * height + row) * width + column))
            first_cell = last_cell
        return torch.cat(rows)
