"""The tiles that a picture is cut into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from detectron2.config import CfgNode

from ...errors import InputError

__all__ = ["Tile", "Tiling", "tile_grid"]


class Tile(NamedTuple):
    """A part of a picture, in its pixels; right and bottom are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut.

    Attributes:
        height, width: of a tile, in pixels.
        overlap_y, overlap_x: pixels that a tile shares with the one below it and right of it.
        full_image: whether the picture as a whole is looked at too.
    """

    height: int
    width: int
    overlap_y: int
    overlap_x: int
    full_image: bool = True

    def __post_init__(self) -> None:
        for overlap, side, name in (
            (self.overlap_y, self.height, "high"),
            (self.overlap_x, self.width, "wide"),
        ):
            if not 0 <= overlap < side:
                raise InputError(
                    f"tiles are {side} pixels {name} and overlap by {overlap}; make the overlap "
                    "smaller than the tile"
                )

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> Tiling | None:
        """Of ``TEST.TILES``; None where pictures stay whole."""
        node = cfg.TEST.TILES
        if not node.SIZE:
            return None
        height, width = node.SIZE[0], node.SIZE[-1]
        pixels = node.OVERLAP_PIXELS
        return cls(
            height,
            width,
            pixels or int(node.OVERLAP * height),
            pixels or int(node.OVERLAP * width),
            node.FULL_IMAGE,
        )

    def fits(self, height: int, width: int) -> bool:
        """Whether a picture of that size is one tile."""
        return height <= self.height and width <= self.width

    def tiles_of(self, height: int, width: int) -> list[Tile]:
        """The tiles of a picture of that size, see :func:`tile_grid`."""
        return tile_grid(height, width, (self.height, self.width), (self.overlap_y, self.overlap_x))


def tile_grid(
    height: int, width: int, size: tuple[int, int], overlap: tuple[int, int]
) -> list[Tile]:
    """Tiles that cover a picture, row by row; the last ones are moved inwards, not made smaller.

    Args:
        height, width: of the picture, in pixels.
        size: height and width of a tile; a picture that is smaller has smaller tiles.
        overlap: pixels that a tile shares with the one below it, and with the one right of it.
    """
    rows = _starts(height, size[0], overlap[0])
    columns = _starts(width, size[1], overlap[1])
    return [
        Tile(left, top, min(left + size[1], width), min(top + size[0], height))
        for top in rows
        for left in columns
    ]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    starts = [0]
    while starts[-1] + size < length:
        starts.append(starts[-1] + size - overlap)
    # The last one may reach over the end.
    return [max(0, min(start, length - size)) for start in starts]
