"""From the maps to boxes: peaks by 3x3 maximum, and what the other maps say there.

Letters: N images, K classes, H x W cells of the map, T peaks per image, M objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .targets import CentrePoints

__all__ = ["PeakDecoder", "box_maps", "find_peaks"]


def find_peaks(heat: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The highest local maxima of each image: values, classes and cells, (N, T) each, best first.

    An entry is a maximum where none of its 8 neighbours of the same class is higher. Where there
    are fewer than T, the values of the rest are -inf.

    Args:
        heat: (N, K, H, W), scores or their logits.
        most: T.
    """
    images, classes, height, width = heat.shape
    area = height * width
    is_peak = heat == F.max_pool2d(heat, 3, stride=1, padding=1)
    flat = heat.masked_fill(~is_peak, -torch.inf).flatten(1)
    # Always T, also of a map with fewer entries, so that a graph of this takes any map.
    nothing = flat.new_full((1, most), -torch.inf).expand(images, most)
    values, index = torch.cat([flat, nothing], dim=1).topk(most, dim=1)
    return values, *_divmod(index.clamp(max=classes * area - 1), area)


def boxes_at(cells: Tensor, size: Tensor, offset: Tensor, stride: int) -> Tensor:
    """Boxes (N, T, 4), XYXY in pixels of the network's input.

    Args:
        cells: (N, T) int64 in [0, H*W).
        size: (N, 2, H, W) widths and heights in cells; those below 0 are 0.
        offset: (N, 2, H, W) of the centre from the cell's corner, x and y in cells.
        stride: pixels per cell.
    """
    width = size.shape[3]
    index = cells[:, None].expand(-1, 2, -1)
    half = size.flatten(2).gather(2, index).clamp(min=0) / 2  # (N, 2, T)
    row, column = _divmod(cells, width)
    corner = torch.stack([column, row], dim=1)
    centre = corner + offset.flatten(2).gather(2, index)
    return torch.cat([centre - half, centre + half], dim=1).transpose(1, 2) * stride


def _divmod(x: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder of x >= 0; the remainder of a size that is a symbol has no ONNX."""
    quotient = x.div(divisor, rounding_mode="floor")
    return quotient, x - quotient * divisor


def box_maps(points: CentrePoints, images: int, map_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Maps of sizes and of offsets, (N, 2, H, W) each, that say at each object's cell what it is.

    Of two objects in one cell, the last one counts. The detector does not need these maps in
    training; they are the answer that it should give.
    """
    maps = []
    for values in (points.size, points.offset):
        whole = values.new_zeros(images, *map_size, 2)
        whole[points.image, points.row, points.column] = values
        maps.append(whole.permute(0, 3, 1, 2))
    return maps[0], maps[1]


@dataclass(frozen=True)
class PeakDecoder:
    """Peaks as detections, with NMS only where it is asked for.

    Attributes:
        stride: of the maps, in pixels.
        score_thresh: peaks with a score above this are kept.
        max_detections: of an image.
        nms_kind: "none", "per_class" or "class_agnostic".
        nms_thresh: of NMS: boxes with a larger IoU with a better one are dropped.
    """

    stride: int
    score_thresh: float = 0.05
    max_detections: int = 100
    nms_kind: str = "none"
    nms_thresh: float = 0.5

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        size: Tensor,
        offset: Tensor,
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """N Instances with ``pred_boxes``, ``scores`` and ``pred_classes``, best first.

        Args:
            logits: (N, K, H, W) of the heat.
            size, offset: see :func:`boxes_at`.
            image_sizes: N, height and width without padding, in pixels.
        """
        values, classes, cells = find_peaks(logits.float(), self.max_detections)
        boxes = boxes_at(cells, size.float(), offset.float(), self.stride)
        scores = values.sigmoid()
        kept = (scores > self.score_thresh) & boxes.isfinite().all(dim=2)
        return [
            self._suppressed(
                Instances(
                    image_size,
                    pred_boxes=Boxes(boxes[i, kept[i]]),
                    scores=scores[i, kept[i]],
                    pred_classes=classes[i, kept[i]],
                )
            )
            for i, image_size in enumerate(image_sizes)
        ]

    def _suppressed(self, found: Instances) -> Instances:
        if self.nms_kind == "none":
            return found
        groups = found.pred_classes
        if self.nms_kind == "class_agnostic":
            groups = torch.zeros_like(groups)
        return found[batched_nms(found.pred_boxes.tensor, found.scores, groups, self.nms_thresh)]
