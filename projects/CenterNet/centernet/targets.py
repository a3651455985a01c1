"""What the maps have to say of the objects of an image: heat, size and offset (Sec. 3).

Letters: N images, M objects, K classes, H x W cells of the map. A cell is a pixel of the map,
``stride`` pixels of the network's input wide; object m lies in the cell that holds its centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from detectron2.structures import Instances
from torch import Tensor

__all__ = ["CentrePoints", "around", "centre_points", "draw_heat", "gaussian_radius"]


@dataclass(frozen=True)
class CentrePoints:
    """M entries of objects of N images, each with a cell that learns it; one per object at first.

    Attributes:
        image, label: (M,) int64.
        row, column: (M,) int64, the cell.
        offset: (M, 2) of the centre from the cell's corner, x and y in cells; in [0, 1) where the
            cell holds the centre.
        size: (M, 2) width and height in cells.
    """

    image: Tensor
    label: Tensor
    row: Tensor
    column: Tensor
    offset: Tensor
    size: Tensor

    def __len__(self) -> int:
        return len(self.label)


def centre_points(
    gt_instances: Sequence[Instances], stride: int, map_size: tuple[int, int]
) -> CentrePoints:
    """The objects of N images.

    Args:
        gt_instances: N, with ``gt_boxes`` in pixels of the network's input and ``gt_classes``.
            Boxes without an area are left out.
        stride: pixels per cell.
        map_size: H and W.
    """
    counts = [len(x) for x in gt_instances]
    boxes = torch.cat([x.gt_boxes.tensor for x in gt_instances]) / stride
    labels = torch.cat([x.gt_classes for x in gt_instances])
    image = torch.arange(len(counts), device=boxes.device)
    image = image.repeat_interleave(torch.tensor(counts, device=boxes.device))
    size = boxes[:, 2:] - boxes[:, :2]
    kept = (size > 0).all(dim=1)
    boxes, labels, image, size = boxes[kept], labels[kept], image[kept], size[kept]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    last = centre.new_tensor([map_size[1] - 1, map_size[0] - 1])
    cell = torch.minimum(centre.floor().clamp(min=0), last)
    column, row = cell.long().unbind(dim=1)
    return CentrePoints(image, labels, row, column, centre - cell, size)


def around(points: CentrePoints, reach: int, map_size: tuple[int, int]) -> CentrePoints:
    """The objects at all cells within a square around their own: one entry per object and cell.

    A peak is often a cell off, and what the other maps say there counts. A cell that several
    objects reach is that of the object whose centre is nearest, but each keeps its own cell.

    Args:
        points: one entry per object.
        reach: from its cell, in cells; at 0 nothing is added.
        map_size: H and W.
    """
    if reach == 0 or not len(points):
        return points
    steps = torch.arange(-reach, reach + 1, device=points.row.device)
    down, right = (x.flatten() for x in torch.meshgrid(steps, steps, indexing="ij"))
    row, column = points.row[:, None] + down, points.column[:, None] + right  # (M, S)
    offset = points.offset[:, None] - torch.stack([right, down], dim=1)  # (M, S, 2)
    distance = (offset - 0.5).square().sum(dim=2)
    distance[:, len(down) // 2] = -1.0
    height, width = map_size
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    owner, step = inside.nonzero(as_tuple=True)
    row, column, distance = row[owner, step], column[owner, step], distance[owner, step]
    cell = (points.image[owner] * height + row) * width + column
    least = distance.new_full((int(cell.max()) + 1,), torch.inf)
    least = least.scatter_reduce(0, cell, distance, "amin")
    kept = distance <= least[cell]
    owner, step = owner[kept], step[kept]
    return replace(
        points,
        image=points.image[owner],
        label=points.label[owner],
        row=row[kept],
        column=column[kept],
        offset=offset[owner, step],
        size=points.size[owner],
    )


def gaussian_radius(
    height: Tensor, width: Tensor, min_overlap: float = 0.7, formula: str = "correct"
) -> Tensor:
    """The largest r, in cells, at which a box moved by r in both axes still fits its object.

    To fit is an IoU of ``min_overlap``. Three boxes are looked at, and the least r is taken: one
    moved by (r, r), one smaller by r on each side, and one larger by r on each side. Each r is a
    root of a quadratic equation a r^2 + b r + c = 0.

    Args:
        height, width: (M,) in cells.
        min_overlap: in (0, 1).
        formula: "correct", the least positive roots (-b - sqrt(b^2 - 4ac)) / 2a; or "authors", that
            of the authors' code, which adds the root and divides by 2 instead of 2a.
    """
    total, area, t = height + width, height * width, min_overlap
    moved = (1.0, -total, area * (1 - t) / (1 + t))
    smaller = (4.0, -2 * total, (1 - t) * area)
    larger = (4 * t, 2 * t * total, (t - 1) * area)
    if formula == "authors":
        roots = [
            (abs_b + (b * b - 4 * a * c).sqrt()) / 2
            for a, b, c, abs_b in (
                (*moved, total),
                (*smaller, 2 * total),
                (*larger, -2 * t * total),
            )
        ]
    else:
        signs = (-1.0, -1.0, 1.0)  # of the last equation, whose c is negative, the other root
        roots = [
            (-b + sign * (b * b - 4 * a * c).sqrt()) / (2 * a)
            for sign, (a, b, c) in zip(signs, (moved, smaller, larger), strict=True)
        ]
    return torch.stack(roots).amin(dim=0)


def draw_heat(points: CentrePoints, shape: tuple[int, int, int, int], radius: Tensor) -> Tensor:
    """The map (N, K, H, W) in [0, 1] that is 1 at the objects' cells.

    Around them it falls as exp(-d^2 / 2 sigma^2) with sigma = (2 r + 1) / 6, within a square of
    2 r + 1 cells; where those of two objects of a class meet, the larger value counts.

    Args:
        points: of the N images.
        shape: (N, K, H, W).
        radius: (M,) whole numbers of cells, at least 0.
    """
    images, classes, height, width = shape
    device = radius.device
    radius = radius.to(torch.float32)
    sigma = (2 * radius + 1) / 6
    profiles = []
    for length, centre in ((height, points.row), (width, points.column)):
        distance = (torch.arange(length, device=device) - centre[:, None]).abs()
        profile = torch.exp(-(distance**2) / (2 * sigma[:, None] ** 2))
        profiles.append(profile.masked_fill(distance > radius[:, None], 0.0))
    heat = torch.zeros(images * classes, height * width, device=device)
    patches = (profiles[0][:, :, None] * profiles[1][:, None, :]).flatten(1)  # (M, H*W)
    plane = (points.image * classes + points.label)[:, None].expand_as(patches)
    return heat.scatter_reduce(0, plane, patches, "amax").view(shape)
