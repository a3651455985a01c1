"""ATSS against a slow reference that follows the paper's algorithm box by box."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch.utils._python_dispatch import TorchDispatchMode

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.modeling import ATSSAssigner, RetinaNetAnchorGenerator
from retinanet_ext.modeling.assigners.atss import _anchors_per_location
from retinanet_ext.registry import ASSIGNER_REGISTRY

K = 4
SIZES = [(12, 16), (6, 8), (3, 4)]


def grid_anchors(scales: int = 1, ratios: tuple[float, ...] = (1.0,)) -> list[Boxes]:
    """Three levels over an image of 128 x 96 pixels."""
    generator = RetinaNetAnchorGenerator(
        octave_base_sizes=[16.0, 32.0, 64.0],
        scales_per_octave=scales,
        aspect_ratios=[list(ratios)],
        strides=[8, 16, 32],
    )
    return generator([torch.zeros(1, 1, *size) for size in SIZES])


def instances(boxes: torch.Tensor | list, classes: list[int] | None = None) -> Instances:
    gt = Instances((96, 128))
    gt.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    gt.gt_classes = torch.arange(len(gt.gt_boxes)) % K if classes is None else torch.tensor(classes)
    return gt


def random_boxes(count: int, whole: float = 0) -> torch.Tensor:
    corner, size = torch.rand(count, 2) * torch.tensor([100.0, 70]), torch.rand(count, 2) * 60 + 4
    boxes = torch.cat([corner, corner + size], dim=1)
    return (boxes / whole).round() * whole if whole else boxes


def iou_of(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    # As float32, in which equal IoUs are equal however they were computed.
    return torch.tensor(width * height / (sum(areas) - width * height)).item()


def reference(levels: list[Boxes], per_location: int, gt: Instances, topk: int):
    """Labels (R,), matched boxes and thresholds, one pair at a time in Python's floats."""
    best: dict[int, tuple[float, int]] = {}
    thresholds = []
    anchors = torch.cat([x.tensor for x in levels]).tolist()
    # All grids here have centres at multiples of 1/16.
    centres = [(round((a[0] + a[2]) * 8) / 16, round((a[1] + a[3]) * 8) / 16) for a in anchors]
    for index, box in enumerate(gt.gt_boxes.tensor.tolist()):
        cx, cy = round((box[0] + box[2]) * 8) / 16, round((box[1] + box[3]) * 8) / 16
        candidates, start = [], 0
        for level in levels:
            firsts = range(start, start + len(level), per_location)
            by_distance = sorted(
                firsts, key=lambda i: ((centres[i][0] - cx) ** 2 + (centres[i][1] - cy) ** 2, i)
            )
            for first in by_distance[:topk]:
                candidates += range(first, first + per_location)
            start += len(level)
        ious = [iou_of(anchors[i], box) for i in candidates]
        mean = math.fsum(ious) / len(ious)
        variance = math.fsum((x - mean) ** 2 for x in ious) / (len(ious) - 1)
        thresholds.append(mean + math.sqrt(variance))
        for i, iou in zip(candidates, ious, strict=True):
            x, y = centres[i]
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if inside and iou >= thresholds[-1] and iou > best.get(i, (-1.0, 0))[0]:
                best[i] = iou, index
    labels = [int(gt.gt_classes[best[i][1]]) if i in best else K for i in range(len(anchors))]
    return labels, {i: match[1] for i, match in best.items()}, thresholds


def assert_equals_reference(levels: list[Boxes], per_location: int, gt: Instances, topk: int):
    labels, matches, thresholds = reference(levels, per_location, gt, topk)
    assigner = ATSSAssigner(num_classes=K, topk=topk)
    targets = assigner(levels, [gt])
    assert targets.labels.dtype == torch.int64
    assert targets.labels[0].tolist() == labels
    for anchor, box in matches.items():
        assert torch.equal(targets.boxes[0, anchor], gt.gt_boxes.tensor[box])
    computed = assigner.debug_targets(levels, [gt])[0].iou_thresholds
    torch.testing.assert_close(computed, torch.tensor(thresholds, dtype=torch.float64))
    return labels


@pytest.mark.parametrize("whole", [0, 8, 16])  # 16: many equal distances and IoUs, equal boxes
@pytest.mark.parametrize(("scales", "ratios"), [(1, (1.0,)), (2, (0.5, 1.0, 2.0))])
@pytest.mark.parametrize("topk", [1, 9])
def test_equals_the_reference(topk: int, scales: int, ratios: tuple[float, ...], whole: float):
    levels = grid_anchors(scales, ratios)
    gt = instances(random_boxes(14, whole))
    labels = assert_equals_reference(levels, scales * len(ratios), gt, topk)
    assert 2 <= sum(label < K for label in labels) < 300


def test_equals_the_reference_where_boxes_are_odd():
    odd = [
        [0.0, 0, 128, 96],  # the image
        [200.0, 200, 260, 230],  # outside
        [-50.0, -40, 30, 30],  # half outside
        [40.0, 40, 40, 70],  # without area
        [70.0, 60, 50, 40],  # inverted
        [1e6, 1e6, 2e6, 2e6],
        [62.0, 30, 66, 34],  # smaller than any anchor
        [0.0, 0, 128, 96],  # the image again, of another class
    ]
    for topk in (1, 4, 500):  # 500: more than there are locations
        assert_equals_reference(grid_anchors(), 1, instances(odd), topk)


def test_a_box_in_the_middle_of_four_locations_takes_them_all():
    # Centres at 60 and 68 are at the same distance from 64; their four IoUs are equal and above
    # those of all others, so no rounding may push one of them below the threshold.
    targets = ATSSAssigner(num_classes=K)(grid_anchors(), [instances([[56, 40, 72, 56]], [3])])
    assert (targets.labels[0] == 3).nonzero().squeeze(1).tolist() == [87, 88, 103, 104]


def test_equal_ious_are_not_below_their_own_mean():
    # Nine equal anchors at one location: standard deviation 0, threshold the IoU itself.
    anchors = [Boxes(torch.tensor([[0.0, 0, 10, 10]]).repeat(9, 1))]
    for size in (6.0, 7.1, 9.7):
        targets = ATSSAssigner(num_classes=K)(anchors, [instances([[0, 0, 10, size]], [1])])
        assert targets.labels.tolist() == [[1] * 9]


def test_an_anchor_goes_to_the_box_of_highest_iou_and_to_the_first_of_equals():
    anchors = [Boxes(torch.tensor([[0.0, 0, 10, 10]]))]
    boxes = [[0.0, 0, 10, 8], [0.0, 0, 10, 9], [0.0, 1, 10, 10]]
    targets = ATSSAssigner(num_classes=K)(anchors, [instances(boxes, [0, 1, 2])])
    assert targets.labels.tolist() == [[1]]
    assert targets.boxes[0, 0].tolist() == boxes[1]


def test_a_centre_on_the_border_of_a_box_is_not_inside():
    anchors = [Boxes(torch.tensor([[0.0, 0, 10, 10]]))]
    for box, label in (([5.0, 0, 15, 10], K), ([4.0, 0, 14, 10], 0)):
        assert ATSSAssigner(num_classes=K)(anchors, [instances([box])]).labels.item() == label


def test_images_without_objects_are_background_and_images_do_not_mix():
    levels = grid_anchors()
    one, two = instances([[8, 8, 40, 40]], [1]), instances([[60, 30, 90, 70]], [2])
    assigner = ATSSAssigner(num_classes=K)
    targets = assigner(levels, [one, instances([]), two])
    assert targets.labels[1].tolist() == [K] * 252
    assert torch.equal(targets.labels[0], assigner(levels, [one]).labels[0])
    assert torch.equal(targets.labels[2], assigner(levels, [two]).labels[0])
    assert (targets.labels[2] == 2).any() and not (targets.labels == -1).any()


def test_chunks_of_boxes_give_what_all_boxes_at_once_give(monkeypatch):
    levels, gt = grid_anchors(2), instances(random_boxes(30))
    whole = ATSSAssigner(num_classes=K)(levels, [gt])
    monkeypatch.setattr("retinanet_ext.boxes.PAIRS_AT_ONCE", 192 * 7)
    parts = ATSSAssigner(num_classes=K)(levels, [gt])
    assert torch.equal(whole.labels, parts.labels)
    assert torch.equal(whole.boxes[whole.pos_mask], parts.boxes[whole.pos_mask])


def test_memory_is_bounded_for_many_boxes_and_anchors():
    generator = RetinaNetAnchorGenerator(
        octave_base_sizes=[16.0],
        scales_per_octave=3,
        aspect_ratios=[[0.5, 1.0, 2.0]],
        strides=[4],
    )
    levels = generator([torch.zeros(1, 1, 60, 80)])
    gt = instances(random_boxes(300))

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(x, torch.Tensor):
                    self.numel = max(self.numel, x.numel())
            return out

    with Largest() as largest:
        ATSSAssigner(num_classes=K)(levels, [gt])
    assert largest.numel <= 2**20 < 300 * len(levels[0]) / 10


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize(("scales", "ratios"), [(1, [1.0]), (1, [0.5, 2.0]), (3, [0.5, 1.0, 2.0])])
def test_anchors_of_a_location_are_counted(scales: int, ratios: list[float], offset: float):
    generator = RetinaNetAnchorGenerator(
        octave_base_sizes=[32.0, 511.7],
        scales_per_octave=scales,
        aspect_ratios=[ratios],
        strides=[8, 128],
        offset=offset,
    )
    levels = generator([torch.zeros(1, 1, 40, 300), torch.zeros(1, 1, 1, 1)])
    centres = [x.get_centers().double() for x in levels]
    assert _anchors_per_location(centres) == [scales * len(ratios)] * 2


def test_anchors_without_groups_are_locations_of_their_own():
    anywhere = torch.rand(7, 2).double() * 50
    uneven = torch.tensor([[0.0, 0], [0, 0], [9, 9], [9, 9], [9, 9]]).double()
    assert _anchors_per_location([anywhere, uneven, anywhere[:0]]) == [1, 1, 1]
    assert _anchors_per_location([uneven[:3], uneven[:4]]) == [1, 2]


def test_levels_may_have_different_numbers_of_anchors():
    few, many = grid_anchors(), grid_anchors(3)
    gt = instances([[30, 30, 62, 62]], [1])
    mixed = ATSSAssigner(num_classes=K)([few[0], many[1], Boxes(few[0].tensor[:0])], [gt])
    assert mixed.labels.shape == (1, 192 + 144)
    assert (mixed.labels[0, 192:] == 1).any()


def test_config_chooses_it_and_its_topk():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.RETINANET.ASSIGNER = "ATSSAssigner"
    cfg.MODEL.RETINANET.ATSS_TOPK = 5
    assigner = ASSIGNER_REGISTRY.get(cfg.MODEL.RETINANET.ASSIGNER)(cfg)
    assert assigner.topk == 5 and assigner.num_classes == 80
    cfg.MODEL.RETINANET.ATSS_TOPK = 0
    with pytest.raises(ValueError, match="ATSS_TOPK is 0"):
        validate_cfg(cfg)
    with pytest.raises(ValueError, match="ATSS_TOPK is 0"):
        ATSSAssigner(num_classes=K, topk=0)
