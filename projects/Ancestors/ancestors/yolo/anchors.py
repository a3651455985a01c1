"""The anchors of YOLO's versions, as MODEL.ANCHOR_GENERATOR.CELL_ANCHORS takes them.

Letters: L levels, A anchors per location.
"""

from __future__ import annotations

from collections.abc import Sequence

Shapes = Sequence[tuple[float, float]]
"""Widths and heights."""

V2_STRIDE = 32

# Of version 2, in cells of V2_STRIDE pixels, for two data sets.
V2_VOC: Shapes = (
    (1.3221, 1.73145),
    (3.19275, 4.00944),
    (5.05587, 8.09892),
    (9.47112, 4.84053),
    (11.2364, 10.0071),
)
V2_COCO: Shapes = (
    (0.57273, 0.677385),
    (1.87446, 2.06253),
    (3.33843, 5.47434),
    (7.88282, 3.52778),
    (9.77052, 9.16828),
)
# Of version 3 for COCO, in pixels, of the levels of strides 8, 16 and 32.
V3: Sequence[Shapes] = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


def as_cell_anchors(levels: Sequence[Shapes], cell: float = 1.0) -> list[list[list[float]]]:
    """Shapes of L levels as boxes [x1, y1, x2, y2] around a location, px.

    Args:
        levels: of each level A widths and heights.
        cell: how many pixels they count in.
    """
    halves = [[(w * cell / 2, h * cell / 2) for w, h in shapes] for shapes in levels]
    return [[[-w, -h, w, h] for w, h in level] for level in halves]


def v1_outputs(num_classes: int = 20, grid: int = 7, boxes: int = 2) -> tuple[int, int]:
    """How many numbers, and how many boxes, version 1 (arXiv 1506.02640) gives for an image.

    It has no anchors: each cell of the grid has boxes of five numbers, with their confidence, and
    one set of class probabilities.
    """
    cells = grid * grid
    return cells * (boxes * 5 + num_classes), cells * boxes
