"""What the seams between tiles leave of boxes that a tile's edge cuts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from detectron2.structures import Boxes, Instances

from retinanet_ext.inference.pooled.found import Found, settle_seams
from retinanet_ext.inference.pooled.tiles import Tile

HEIGHT, WIDTH = 96, 152
LEFT, RIGHT = Tile(0, 0, 96, HEIGHT), Tile(56, 0, WIDTH, HEIGHT)
WHOLE = (80, 40, 110, 66)  # over the right edge of LEFT


def seen(of_tile: int, box: Sequence[float], score: float = 0.8, label: int = 0) -> Found:
    candidates = Instances(
        (HEIGHT, WIDTH),
        pred_boxes=Boxes(torch.tensor([box], dtype=torch.float32)),
        scores=torch.tensor([score]),
        pred_classes=torch.tensor([label]),
    )
    return Found.of(candidates, 0.5, False, (LEFT, RIGHT)[of_tile], of_tile, 0, 1.0)


def score_left(cut: Found, whole: Found) -> float | None:
    """Of the cut box after the seams were settled; None if it is gone. The whole one stays."""
    settle_seams([cut, whole], HEIGHT, WIDTH, 0.5, 0.05, 0)
    assert len(whole.candidates) == 1 and float(whole.candidates.scores) == pytest.approx(0.8)
    return float(cut.candidates.scores) if len(cut.candidates) else None


@pytest.mark.parametrize(
    "box",
    [
        (82, 41, 96, 65),  # the part of the object that the tile shows
        (30, 40, 95, 66),  # a guess of four times its length
        (30, 38, 93, 68),
    ],
)
def test_a_cut_box_goes_where_a_whole_one_continues_it(box):
    assert score_left(seen(0, box), seen(1, WHOLE)) is None


def test_a_box_cut_at_its_left_goes_too():
    whole = seen(0, (40, 40, 70, 66))
    assert score_left(seen(1, (57, 40, 120, 66)), whole) is None


@pytest.mark.parametrize(
    "box, whole",
    [
        ((30, 10, 96, 66), {}),  # less than half of what is at the edge
        ((30, 40, 96, 66), {"box": (80, 40, 98, 66)}),  # ends at the edge, too
        ((30, 40, 96, 66), {"box": (94, 40, 130, 66)}),  # begins at the edge
        ((30, 40, 96, 66), {"label": 1}),
    ],
)
def test_another_cut_box_stays_with_nine_tenths_of_its_score(box, whole):
    assert score_left(seen(0, box), seen(1, **{"box": WHOLE, **whole})) == pytest.approx(0.72)


def test_a_cut_box_stays_where_the_whole_one_has_less_than_half_its_score():
    cut, whole = seen(0, (30, 40, 96, 66), 0.9), seen(1, WHOLE, 0.4)
    settle_seams([cut, whole], HEIGHT, WIDTH, 0.5, 0.05, 0)
    assert len(cut.candidates) == 1


def test_a_box_that_no_edge_cuts_stays_as_it_is():
    assert score_left(seen(0, (30, 40, 91, 66)), seen(1, WHOLE)) == pytest.approx(0.8)


def test_tiles_one_below_the_other_do_the_same():
    upper, lower = Tile(0, 0, 96, 96), Tile(0, 56, 96, 152)
    found = [seen(0, (40, 30, 66, 95)), seen(1, (40, 80, 66, 110))]
    for x, tile in zip(found, (upper, lower), strict=True):
        x.tile = tile
    settle_seams(found, 152, 96, 0.5, 0.05, 0)
    assert [len(x.candidates) for x in found] == [0, 1]
