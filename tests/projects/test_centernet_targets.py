"""CenterNet's targets and its decoder: numbers of the paper, and one undoes the other."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou

from projects.CenterNet.centernet import (
    CenterNetHead,
    PeakDecoder,
    around,
    box_maps,
    centre_points,
    draw_heat,
    find_peaks,
    gaussian_radius,
)

STRIDE = 4


def radius(height: float, width: float, overlap: float = 0.7, formula: str = "correct") -> float:
    sides = torch.tensor([[height], [width]], dtype=torch.float64)
    return gaussian_radius(*sides, overlap, formula).item()


def instances(boxes: list[list[float]], classes: list[int], size=(96, 128)) -> Instances:
    return Instances(
        size,
        gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
    )


@pytest.mark.parametrize(
    ("height", "width", "authors", "correct"),
    [
        (10, 10, 2.7332, 0.8167),
        (20, 20, 5.4664, 1.6334),
        (20, 40, 7.3559, 2.1548),
        (7, 13, 2.5058, 0.7368),
        (64, 64, 17.4925, 5.2269),
        (1, 1, 0.2733, 0.0817),
        (3, 100, 1.7269, 0.4407),
    ],
)
def test_radius_by_both_formulas(height, width, authors: float, correct: float):
    assert radius(height, width) == pytest.approx(correct, abs=6e-5)
    assert radius(height, width, formula="authors") == pytest.approx(authors, abs=6e-5)


def test_radius_at_a_lower_overlap():
    expected = {(10, 10): 2.2614, (20, 20): 4.5228, (20, 40): 5.7805, (64, 64): 14.4729}
    for sides, value in expected.items():
        assert radius(*sides, overlap=0.3) == pytest.approx(value, abs=6e-5)


@pytest.mark.parametrize(("height", "width"), [(20, 40), (10, 10), (3, 100), (64, 5)])
@pytest.mark.parametrize("overlap", [0.3, 0.7, 0.9])
def test_a_box_that_is_off_by_the_correct_radius_has_just_the_overlap(height, width, overlap):
    r = radius(height, width, overlap)
    box = torch.tensor([0.0, 0.0, width, height], dtype=torch.float64)
    changes = torch.tensor(
        [[1, 1, 1, 1], [1, 1, -1, -1], [-1, -1, 1, 1]], dtype=torch.float64
    )  # moved, smaller, larger
    iou = pairwise_iou(Boxes(box[None]), Boxes(box + r * changes))[0]
    assert iou.min().item() == pytest.approx(overlap, abs=1e-6)
    # The authors' radius lets more than the overlap go.
    by_authors = radius(height, width, overlap, "authors")
    iou = pairwise_iou(Boxes(box[None]), Boxes(box + by_authors * changes))[0]
    assert iou.min() < overlap


def test_heat_of_one_object():
    points = centre_points([instances([[10, 10, 30, 30]], [1])], STRIDE, (24, 32))
    heat = draw_heat(points, (1, 2, 24, 32), torch.tensor([2]))
    assert not heat[0, 0].any()
    window = heat[0, 1, 3:8, 3:8]  # the centre (20, 20) lies in cell (5, 5)
    expected = {
        2: [0.056135, 0.486752, 1, 0.486752, 0.056135],
        3: [0.027324, 0.236928, 0.486752, 0.236928, 0.027324],
    }
    for row, values in expected.items():
        torch.testing.assert_close(window[row], torch.tensor(values), atol=1e-6, rtol=0)
    assert window[0, 0].item() == pytest.approx(0.003151, abs=1e-6)
    assert heat.count_nonzero() == 25  # nothing outside of the square of 2 r + 1 cells


def test_where_objects_of_a_class_meet_the_larger_heat_counts():
    boxes, classes = [[8, 8, 24, 24], [16, 8, 32, 24], [12, 8, 28, 24]], [0, 0, 1]
    each = [
        draw_heat(
            centre_points([instances([box], [label])], STRIDE, (24, 32)),
            (1, 2, 24, 32),
            torch.tensor([2]),
        )
        for box, label in zip(boxes, classes, strict=True)
    ]
    points = centre_points([instances(boxes, classes)], STRIDE, (24, 32))
    together = draw_heat(points, (1, 2, 24, 32), torch.tensor([2, 2, 2]))
    assert torch.equal(together, torch.stack(each).amax(dim=0))


def test_an_object_at_the_edge_has_a_cell_and_one_without_area_has_none():
    boxes = [[120, 88, 128, 96], [127.9, 95.9, 128, 96], [5, 5, 5, 9]]
    points = centre_points([instances([], []), instances(boxes, [0, 1, 2])], STRIDE, (24, 32))
    assert points.image.tolist() == [1, 1] and points.label.tolist() == [0, 1]
    assert points.row.tolist() == [23, 23] and points.column.tolist() == [31, 31]
    assert points.offset[0].tolist() == [0.0, 0.0] and points.size[0].tolist() == [2.0, 2.0]


def random_scene(generator: torch.Generator, count: int = 12) -> Instances:
    """Boxes with centres in different cells."""
    cells = torch.randperm(24 * 32, generator=generator)[:count]
    corner = torch.stack([cells % 32, cells // 32], dim=1)
    centre = (corner + torch.rand(count, 2, generator=generator)) * STRIDE
    half = 1 + torch.rand(count, 2, generator=generator) * 20
    boxes = torch.cat([centre - half, centre + half], dim=1)
    classes = torch.randint(3, (count,), generator=generator)
    return instances(boxes.tolist(), classes.tolist())


@pytest.mark.parametrize("formula", ["correct", "authors"])
def test_decoding_the_targets_returns_every_box(formula: str):
    generator = torch.Generator().manual_seed(0)
    scenes = [random_scene(generator) for _ in range(20)]
    points = centre_points(scenes, STRIDE, (24, 32))
    height, width = points.size[:, 1].ceil(), points.size[:, 0].ceil()
    reach = gaussian_radius(height, width, 0.7, formula).floor()
    heat = draw_heat(points, (20, 3, 24, 32), reach)
    maps = box_maps(points, 20, (24, 32))
    # Only the centres have a heat of 1, however large the logits are.
    found = PeakDecoder(STRIDE, score_thresh=0.999)(heat.logit(eps=1e-7), *maps, [(96, 128)] * 20)
    for scene, detections in zip(scenes, found, strict=True):
        assert len(detections) == len(scene)
        for box, label in zip(scene.gt_boxes.tensor, scene.gt_classes, strict=True):
            same = detections.pred_classes == label
            apart = (detections.pred_boxes.tensor[same] - box).abs().amax(dim=1)
            assert apart.min() < 1e-3


def test_a_peak_that_is_a_cell_off_gives_the_same_box_where_neighbours_learn_it():
    boxes = [[10.0, 10.0, 30.0, 30.0], [50.0, 21.0, 91.0, 70.0]]
    points = centre_points([instances(boxes, [1, 0])], STRIDE, (24, 32))
    cells = around(points, 1, (24, 32))
    assert len(cells) == 18 and cells.label.tolist() == [1] * 9 + [0] * 9
    size, offset = box_maps(cells, 1, (24, 32))
    for row, column, box in ((5, 5, boxes[0]), (11, 17, boxes[1])):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                heat = torch.full((1, 2, 24, 32), -9.0)
                heat[0, 0, row + down, column + right] = 9.0
                (found,) = PeakDecoder(STRIDE)(heat, size, offset, [(96, 128)])
                torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([box]))


def test_without_reach_only_the_centre_learns_the_box():
    points = centre_points([instances([[10.0, 10.0, 30.0, 30.0]], [1])], STRIDE, (24, 32))
    assert around(points, 0, (24, 32)) is points


def test_a_cell_that_two_objects_reach_is_that_of_the_nearer():
    # Centres in the middle of cells (5, 5) and (5, 7): cell 6 lies between, at the same distance.
    boxes = [[18.0, 18.0, 26.0, 26.0], [24.0, 16.0, 36.0, 28.0], [16.0, 12.0, 32.0, 28.0]]
    two = around(centre_points([instances(boxes[:2], [0, 0])], STRIDE, (24, 32)), 1, (24, 32))
    assert len(two) == 18 and (two.column == 6).sum() == 6
    # The third one's centre (24, 20) is a corner of cell (5, 6), which it keeps.
    points = centre_points([instances(boxes, [0, 0, 0])], STRIDE, (24, 32))
    cells = around(points, 1, (24, 32))
    owners = {
        (int(row), int(column)): float(size)
        for row, column, size in zip(cells.row, cells.column, cells.size[:, 0], strict=True)
    }
    assert owners[5, 6] == 4.0 and owners[5, 5] == 2.0 and owners[5, 7] == 3.0
    assert owners[4, 6] == 4.0 and owners[6, 5] == 2.0


def test_cells_beyond_the_map_learn_nothing():
    points = centre_points([instances([[0.0, 0.0, 6.0, 6.0]], [0])], STRIDE, (24, 32))
    cells = around(points, 2, (24, 32))
    assert len(cells) == 9 and cells.row.min() == 0 and cells.column.min() == 0
    nothing = centre_points([instances([], [])], STRIDE, (24, 32))
    assert len(around(nothing, 1, (24, 32))) == 0


def test_peaks_are_higher_than_their_eight_neighbours_in_their_class():
    heat = torch.zeros(1, 2, 5, 6)
    heat[0, 0, 1, 1], heat[0, 0, 2, 2], heat[0, 0, 4, 5] = 0.9, 0.8, 0.3
    heat[0, 1, 2, 2] = 0.7
    values, classes, cells = find_peaks(heat, most=3)
    torch.testing.assert_close(values, torch.tensor([[0.9, 0.7, 0.3]]))
    assert classes.tolist() == [[0, 1, 0]] and cells.tolist() == [[7, 14, 29]]


def test_a_map_with_fewer_peaks_than_asked_for_gives_no_more_detections():
    logits = torch.full((1, 1, 4, 4), -20.0)
    logits[0, 0, 1, 2] = 3.0
    logits[0, 0, 1, 1] = 2.0  # beside it
    numbers = torch.ones(1, 2, 4, 4)
    decoder = PeakDecoder(STRIDE, score_thresh=0.01, max_detections=100)
    (found,) = decoder(logits, numbers, numbers * 0.5, [(16, 16)])
    assert found.scores.tolist() == pytest.approx([1 / (1 + math.exp(-3))])
    assert found.pred_boxes.tensor.tolist() == [[8.0, 4.0, 12.0, 8.0]]


@pytest.mark.parametrize(
    ("kind", "left"), [("none", [0, 0, 1]), ("per_class", [0, 1]), ("class_agnostic", [0])]
)
def test_nms_is_done_where_it_is_asked_for(kind: str, left: list[int]):
    logits = torch.full((1, 2, 8, 8), -20.0)
    logits[0, 0, 2, 2], logits[0, 0, 2, 4], logits[0, 1, 2, 2] = 3.0, 2.0, 1.0
    size, offset = torch.full((1, 2, 8, 8), 20.0), torch.full((1, 2, 8, 8), 0.5)
    decoder = PeakDecoder(STRIDE, nms_kind=kind, nms_thresh=0.5)
    (found,) = decoder(logits, size, offset, [(32, 32)])
    assert found.pred_classes.tolist() == left


def test_boxes_that_are_not_finite_are_no_detections():
    logits = torch.full((1, 1, 4, 4), -20.0)
    logits[0, 0, 0, 0] = logits[0, 0, 3, 3] = 3.0
    size = torch.ones(1, 2, 4, 4)
    size[0, 0, 0, 0] = math.nan
    (found,) = PeakDecoder(STRIDE)(logits, size, torch.zeros(1, 2, 4, 4), [(16, 16)])
    assert found.pred_boxes.tensor.isfinite().all() and len(found) == 1


def test_training_begins_with_a_score_of_a_tenth_everywhere():
    head = CenterNetHead(8, num_classes=3, width=8)
    heat, size, offset = head([torch.zeros(2, 8, 4, 5)])
    torch.testing.assert_close(heat.sigmoid(), torch.full((2, 3, 4, 5), 0.10065), atol=1e-5, rtol=0)
    assert size.shape == offset.shape == (2, 2, 4, 5)


def test_sizes_are_scaled_and_nothing_else():
    plain, scaled = CenterNetHead(8, 3, width=8), CenterNetHead(8, 3, width=8, size_scale=8.0)
    scaled.load_state_dict(plain.state_dict())
    feature = torch.randn(2, 8, 4, 5, generator=torch.Generator().manual_seed(0))
    (heat, size, offset), found = plain([feature]), scaled([feature])
    assert torch.equal(found[0], heat) and torch.equal(found[2], offset)
    torch.testing.assert_close(found[1], size * 8)
