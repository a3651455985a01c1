"""A detector that looks at each picture several times: by tiles, by views, or both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from ..detector import PlainDetector
from .found import Found, settle_seams
from .merge import Merger
from .tiles import Tile, Tiling
from .views import View

__all__ = ["PooledDetector"]


class _Look(NamedTuple):
    """One input of the network: a view of a tile."""

    tile: Tile
    of_tile: int  # -1: the picture as a whole
    view: View
    of_view: int

    @property
    def shape(self) -> Any:
        """Looks with equal ones are of equal size."""
        return self.tile.height, self.tile.width, self.view.key


class PooledDetector:
    """Pools what all tiles and views of a picture show before NMS, then merges it.

    Tiles are views of the picture's memory, and no more of them than one batch are resized at a
    time. A picture that is one tile, looked at once, is given to the plain detector.

    Attributes:
        num_pictures, num_cut: how many pictures there were, and how many were cut into tiles.
    """

    def __init__(
        self,
        plain: PlainDetector,
        views: Sequence[View],
        tiling: Tiling | None,
        merger: Merger,
        batch_size: int = 4,
        only_plain_view: bool = False,
    ):
        """
        Args:
            plain: for pictures that are looked at once; its model has ``candidates``, as
                :class:`~retinanet_ext.modeling.RetinaNetExt` has.
            views: of each tile.
            tiling: how pictures are cut; None: not at all.
            merger: of what is found.
            batch_size: at most so many inputs go through the network at once.
            only_plain_view: whether ``views`` is the one that ``plain`` has.
        """
        self.plain, self.views, self.tiling, self.merger = plain, list(views), tiling, merger
        self.batch_size = batch_size
        self.only_plain_view = only_plain_view
        self.num_pictures = self.num_cut = 0
        generator: Any = plain.model.anchor_generator
        areas = torch.cat([Boxes(x.detach().cpu()).area() for x in generator.cell_anchors])
        # Half of the smallest anchor: the picture as a whole shows too little of such an object.
        self._smallest = float(areas.min()) ** 0.5 / 2

    def batch_key(self, pixels: np.ndarray) -> Any:
        """As the plain detector's; None for a picture that fills batches by itself."""
        return self.plain.batch_key(pixels) if self._is_plain(pixels) else None

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Instances]:
        """See :class:`~retinanet_ext.inference.detector.Detector`."""
        self.num_pictures += len(pictures)
        if all(map(self._is_plain, pictures)):
            return self.plain(pictures)
        return [
            self.plain([pixels])[0] if self._is_plain(pixels) else self.look(pixels)
            for pixels in pictures
        ]

    def look(self, pixels: np.ndarray) -> Instances:
        """Detections of one picture by all its tiles and views, also where the plain way would do.

        Args:
            pixels: (H, W, C) uint8 in ``INPUT.FORMAT``.
        """
        height, width = pixels.shape[:2]
        found = [x for batch in self._batches(height, width) for x in self._seen(pixels, batch)]
        if len({x.of_tile for x in found}) > 1:
            self.num_cut += 1
            decoder = self.merger.decoder
            settle_seams(
                found, height, width, decoder.nms_thresh, decoder.score_thresh, self._smallest
            )
        merged = self.merger(found)
        merged.pred_boxes.clip((height, width))
        return merged[merged.pred_boxes.nonempty()]

    def _is_plain(self, pixels: np.ndarray) -> bool:
        one_tile = self.tiling is None or self.tiling.fits(*pixels.shape[:2])
        return one_tile and self.only_plain_view

    def _batches(self, height: int, width: int) -> Iterator[list[_Look]]:
        whole = Tile(0, 0, width, height)
        groups = [[(0, whole)]]
        if self.tiling is not None and not self.tiling.fits(height, width):
            groups = [list(enumerate(self.tiling.tiles_of(height, width)))]
            if self.tiling.full_image:
                groups.append([(-1, whole)])
        views = list(enumerate(self.views))
        for tiles in groups:
            for _, same in itertools.groupby(views, lambda x: x[1].key):
                of_size = list(same)
                looks = (_Look(tile, i, view, j) for i, tile in tiles for j, view in of_size)
                while batch := list(itertools.islice(looks, self.batch_size)):
                    yield batch

    def _seen(self, pixels: np.ndarray, batch: Sequence[_Look]) -> list[Found]:
        seen = [
            look.view(pixels[look.tile.top : look.tile.bottom, look.tile.left : look.tile.right])
            for look in batch
        ]
        model: Any = self.plain.model
        with self.plain.lock, torch.no_grad():
            outputs = model.candidates([{"image": x.image} for x in seen])
        found = []
        for look, view, output in zip(batch, seen, outputs, strict=True):
            tile, candidates = look.tile, output.to("cpu")
            boxes = view.boxes_back(candidates.pred_boxes.tensor.float().numpy())
            whole, filled = _in_picture(torch.from_numpy(boxes), tile, *pixels.shape[:2])
            mapped = Instances(
                pixels.shape[:2],
                pred_boxes=Boxes(whole[filled]),
                scores=candidates.scores[filled],
                pred_classes=candidates.pred_classes[filled],
            )
            found.append(
                Found.of(
                    mapped,
                    self.merger.decoder.nms_thresh,
                    self.merger.class_agnostic,
                    tile,
                    look.of_tile,
                    look.of_view,
                    min(view.image.shape[1] / tile.height, view.image.shape[2] / tile.width),
                )
            )
        return found


def _in_picture(
    boxes: torch.Tensor, tile: Tile, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (N, 4) of a tile in pixels of the picture, and which of them are not empty.

    They end at the tile's edges, but not at those of the picture: there, they are clipped after
    NMS, as in the plain path.
    """
    left, top = (tile.left or -math.inf), (tile.top or -math.inf)
    right = tile.right if tile.right < width else math.inf
    bottom = tile.bottom if tile.bottom < height else math.inf
    shift = torch.tensor([tile.left, tile.top] * 2, dtype=boxes.dtype)
    low = torch.tensor([left, top] * 2, dtype=boxes.dtype)
    high = torch.tensor([right, bottom] * 2, dtype=boxes.dtype)
    moved = (boxes + shift).clamp(low, high)
    return moved, Boxes(moved).nonempty()
