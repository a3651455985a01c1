"""What one view of one tile shows, and which of it the seams between tiles leave.

Letters: T candidates of a view, P of them that its own NMS would keep, its peaks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.structures.boxes import pairwise_intersection
from torch import Tensor

from ...modeling.postprocess.nms import top_batched_nms
from .tiles import Tile

__all__ = ["Found", "settle_seams"]

EDGE = 4.0
"""A box ends at a tile's edge if it is nearer than so many pixels, of picture and network input."""
FAR = 16.0
"""From so many pixels of network input on, a tile's edge does not matter to a box."""
COVERED = 0.6
"""Share of a cut box that a whole one has to cover to take its place."""
CONTINUED = 0.8
"""Share of a cut box's side at the tile's edge that a whole one over that edge has to hold."""
COVER_SCORE = 0.5
"""Share of a cut box's score that the whole one must have: a bad guess may cover everything."""
CUT_SCORE = 0.9
"""What remains of the score of a cut box that nothing covers."""
LARGE = 0.7
"""Of a tile's side: larger boxes are left to the picture as a whole."""


@dataclass
class Found:
    """Candidates of one view of one tile.

    Attributes:
        candidates: T, in pixels of the picture and on the CPU; none reaches over an edge of the
            tile that is inside of the picture.
        groups: (T,) int64; only boxes of one group suppress each other.
        tile: the part of the picture.
        of_tile: number of the tile; -1 is the picture as a whole.
        view: number of the view.
        scale: pixels of the network's input in one of the picture.
        peaks: (P,) indices of candidates, best first.
    """

    candidates: Instances
    groups: Tensor
    tile: Tile
    of_tile: int
    view: int
    scale: float
    peaks: Tensor

    @classmethod
    def of(
        cls,
        candidates: Instances,
        nms_thresh: float,
        class_agnostic: bool,
        tile: Tile,
        of_tile: int,
        view: int,
        scale: float,
    ) -> Found:
        """With the peaks that NMS at ``nms_thresh`` finds."""
        classes = candidates.pred_classes
        groups = torch.zeros_like(classes) if class_agnostic else classes
        boxes, scores = candidates.pred_boxes.tensor, candidates.scores
        peaks = top_batched_nms(boxes, scores, groups, nms_thresh, max(1, len(boxes)))
        return cls(candidates, groups, tile, of_tile, view, scale, peaks)

    @property
    def boxes(self) -> Tensor:
        """(P, 4) of the peaks."""
        return self.candidates.pred_boxes.tensor[self.peaks]

    def to_edge(self, height: int, width: int) -> Tensor:
        """How many pixels of the picture peaks (P,) are from an edge of the tile inside of it.

        Args:
            height, width: of the picture.

        Returns:
            The distance to the nearest one; infinite where the tile has none.
        """
        tile, boxes = self.tile, self.boxes
        nearest = boxes.new_full((len(boxes),), math.inf)
        for inside, distance in (
            (tile.left > 0, boxes[:, 0] - tile.left),
            (tile.top > 0, boxes[:, 1] - tile.top),
            (tile.right < width, tile.right - boxes[:, 2]),
            (tile.bottom < height, tile.bottom - boxes[:, 3]),
        ):
            if inside:
                nearest = nearest.minimum(distance)
        return nearest

    def cut(self, height: int, width: int) -> Tensor:
        """Which peaks (P,) end at an edge of the tile that is inside of the picture.

        Args:
            height, width: of the picture.
        """
        return self.to_edge(height, width) < self.edge

    @property
    def edge(self) -> float:
        """:data:`EDGE` in pixels of the picture."""
        return max(EDGE, EDGE / self.scale)

    def continued(self, own: Tensor, others: Tensor, height: int, width: int) -> Tensor:
        """Which boxes that an edge of the tile cuts continue beyond it in which whole ones.

        The tile shows too little of an object to guess its size, so the cut box may be much larger
        than the part of the object that it is a guess at.

        Args:
            own: (C, 4) of this tile, in pixels of the picture.
            others: (O, 4) of other tiles.
            height, width: of the picture.

        Returns:
            (C, O) bool.
        """
        found = torch.zeros(len(own), len(others), dtype=torch.bool)
        tile = self.tile
        for low, high, first, end, size in (
            (0, 2, tile.left, tile.right, width),
            (1, 3, tile.top, tile.bottom, height),
        ):
            across = (1 - low, 3 - low)  # the coordinates along the edge
            start = own[:, None, across[0]].maximum(others[:, across[0]])
            stop = own[:, None, across[1]].minimum(others[:, across[1]])
            side = own[:, across[1]] - own[:, across[0]]
            held = stop - start >= CONTINUED * side[:, None]
            for at, distance in ((first, own[:, low] - first), (end, end - own[:, high])):
                if 0 < at < size:
                    over = (others[:, low] < at - self.edge) & (others[:, high] > at + self.edge)
                    found |= (distance < self.edge)[:, None] & over & held
        return found

    def weights(self) -> Tensor:
        """What the peaks (P,) count for in a mean of boxes of one object.

        Their scores, but what is seen at half the size is off by twice as many pixels, and what
        ends near an edge of the tile was seen without what is around it.
        """
        near = (self.to_edge(*self.candidates.image_size) * self.scale / FAR).clamp(1e-3, 1)
        return self.candidates.scores[self.peaks] * self.scale**2 * near

    def out_of_range(self, smallest: float) -> Tensor:
        """Which peaks (P,) the tiles, or the picture as a whole, see better.

        Args:
            smallest: shortest side of what is taken from the picture as a whole, in pixels of the
                network's input.
        """
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        if self.of_tile < 0:
            return sides.amin(dim=1) * self.scale < smallest
        limits = LARGE * torch.tensor([self.tile.width, self.tile.height])
        return (sides > limits).any(dim=1)

    def with_followers(self, chosen: Tensor, nms_thresh: float) -> Tensor:
        """Which candidates (T,) some peaks are, or suppress: those are guesses at the same object.

        Args:
            chosen: (P,) bool.
        """
        peaks = self.peaks[chosen]
        boxes = self.candidates.pred_boxes
        overlap = pairwise_iou(Boxes(boxes.tensor[peaks]), boxes) > nms_thresh
        follow = (overlap & (self.groups[peaks][:, None] == self.groups)).any(dim=0)
        follow[self.peaks] = False
        follow[peaks] = True
        return follow

    def keep(self, kept: Tensor) -> None:
        """Leave out the candidates that are not in ``kept``, (T,) bool."""
        new = kept.cumsum(0) - 1
        self.peaks = new[self.peaks[kept[self.peaks]]]
        self.candidates, self.groups = self.candidates[kept], self.groups[kept]


def settle_seams(
    found: Sequence[Found],
    height: int,
    width: int,
    nms_thresh: float,
    score_thresh: float,
    smallest: float,
) -> None:
    """Leave out, of all tiles of a picture, what another one sees better; changes ``found``.

    An object at a seam shows up whole in one tile and cut in the other. The cut box goes where a
    whole one of its class covers it, or lies over the edge that cuts it, and all that it would have
    suppressed with it; else it stays with a lower score. With the picture as a whole among
    ``found``, large boxes are taken only from that, and small ones only from tiles.

    Args:
        found: of all tiles and views.
        height, width: of the picture.
        nms_thresh: of the peaks.
        score_thresh: lowered scores must be greater.
        smallest: see :meth:`Found.out_of_range`.
    """
    has_whole = any(x.of_tile < 0 for x in found) and any(x.of_tile >= 0 for x in found)
    cut = [x.cut(height, width) for x in found]
    out = [
        x.out_of_range(smallest) if has_whole else torch.zeros_like(c)
        for x, c in zip(found, cut, strict=True)
    ]
    whole = [x.peaks[~c & ~o] for x, c, o in zip(found, cut, out, strict=True)]
    boxes = torch.cat(
        [x.candidates.pred_boxes.tensor[i] for x, i in zip(found, whole, strict=True)]
    )
    scores = torch.cat([x.candidates.scores[i] for x, i in zip(found, whole, strict=True)])
    groups = torch.cat([x.groups[i] for x, i in zip(found, whole, strict=True)])
    tiles = torch.cat([torch.full((len(i),), x.of_tile) for x, i in zip(found, whole, strict=True)])
    for x, is_cut, is_out in zip(found, cut, out, strict=True):
        near = torch.tensor([x.tile.right, x.tile.bottom])
        others = (tiles != x.of_tile) & (boxes[:, :2] < near).all(dim=1)
        others &= (boxes[:, 2:] > torch.tensor([x.tile.left, x.tile.top])).all(dim=1)
        dropped = is_out.clone()
        mine = is_cut.nonzero().flatten()
        if len(mine) and others.any():
            own = x.boxes[mine]
            inner = pairwise_intersection(Boxes(own), Boxes(boxes[others]))
            covered = inner >= COVERED * Boxes(own).area()[:, None]
            covered |= x.continued(own, boxes[others], height, width)
            covered &= x.groups[x.peaks[mine]][:, None] == groups[others]
            own_scores = x.candidates.scores[x.peaks[mine]]
            covered &= scores[others] >= COVER_SCORE * own_scores[:, None]
            dropped[mine] |= covered.any(dim=1)
        lowered = x.with_followers(is_cut & ~dropped, nms_thresh)
        kept = ~x.with_followers(dropped, nms_thresh)
        found_scores = x.candidates.scores
        x.candidates.scores = torch.where(lowered, found_scores * CUT_SCORE, found_scores)
        x.keep(kept & ~(lowered & (x.candidates.scores <= score_thresh)))
