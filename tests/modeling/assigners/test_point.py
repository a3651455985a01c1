"""The assigner of locations against Detectron2's FCOS and against boxes worked out by hand."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes, Instances

from retinanet_ext import UserError, get_cfg, validate_cfg
from retinanet_ext import boxes as boxes_module
from retinanet_ext.modeling import PointAssigner
from retinanet_ext.registry import ASSIGNER_REGISTRY

K, STRIDES = 5, [8, 16, 32]
SIZE = (128, 160)


def locations(strides: list[int] = STRIDES) -> list[Boxes]:
    generator = DefaultAnchorGenerator(
        sizes=[[x] for x in strides], aspect_ratios=[1.0], strides=strides, offset=0.5
    )
    return generator([torch.zeros(1, 1, SIZE[0] // x, SIZE[1] // x) for x in strides])


def instances(boxes: list | torch.Tensor, classes: list[int] | None = None) -> Instances:
    gt = Instances(SIZE)
    gt.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    gt.gt_classes = torch.arange(len(gt.gt_boxes)) % K if classes is None else torch.tensor(classes)
    return gt


def detectron2_labels(
    gt: list[Instances], radius: float = 1.5
) -> tuple[torch.Tensor, torch.Tensor]:
    fcos = FCOS.__new__(FCOS)
    torch.nn.Module.__init__(fcos)
    fcos.num_classes, fcos.center_sampling_radius = K, radius
    labels, boxes = fcos.label_anchors(locations(), gt)
    return torch.stack(labels), torch.stack(boxes)


def random_scene(seed: int) -> Instances:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(7, 2, generator=generator) * torch.tensor([130.0, 100])
    size = torch.rand(7, 2, generator=generator) ** 2 * 110 + 4
    # Whole pixels: Detectron2 compares areas in float32 after taking them from 1e8, in steps of 8.
    boxes = torch.cat([corner, corner + size], dim=1).round()
    return instances(boxes)


def same_to_8_square_pixels(areas: torch.Tensor) -> bool:
    gaps = areas.sort().values.diff()
    return bool((gaps < 16).any())


@pytest.mark.parametrize("radius", [0.5, 1.5, 3.0])
def test_labels_and_boxes_are_those_of_detectron2s_fcos(radius: float):
    scenes = [random_scene(seed) for seed in range(60)]
    scenes = [x for x in scenes if not same_to_8_square_pixels(x.gt_boxes.area())][:20]
    assert len(scenes) == 20
    labels, boxes = detectron2_labels(scenes, radius)
    got = PointAssigner(num_classes=K, center_sampling_radius=radius)(locations(), scenes)
    assert got.pos_mask.sum() > 80
    assert (got.labels != labels).sum() == 0
    assert (got.boxes[got.pos_mask] != boxes[got.pos_mask]).sum() == 0


def test_chunks_of_boxes_change_nothing(monkeypatch: pytest.MonkeyPatch):
    scene, assigner = [random_scene(3)], PointAssigner(num_classes=K)
    whole = assigner(locations(), scene)
    monkeypatch.setattr(boxes_module, "PAIRS_AT_ONCE", 2 * whole.labels.shape[1])
    parts = assigner(locations(), scene)
    assert torch.equal(whole.labels, parts.labels)
    assert torch.equal(whole.matched_idxs, parts.matched_idxs)


def test_a_location_takes_the_smallest_object_and_of_equal_ones_the_first():
    # All three hold the location (12, 12) of the finest level in their middle.
    gt = instances([[2, 2, 22, 22], [4, 4, 20, 20], [4, 4, 20, 20]], [0, 1, 2])
    targets = PointAssigner(num_classes=K)(locations(), [gt])
    middle = 1 * (SIZE[1] // 8) + 1  # row 1, column 1: its centre is (12, 12)
    assert targets.labels[0, middle] == 1
    assert targets.matched_idxs[0, middle] == 1


def test_the_farthest_edge_decides_the_level():
    levels = [len(x) for x in locations()]
    for side, level in ((20, 0), (60, 0), (120, 1), (124, 1)):
        left, top = (160 - side) / 2, (128 - side) / 2
        gt = instances([[left, top, left + side, top + side]])
        assigner = PointAssigner(num_classes=K, center_sampling_radius=1.5)
        found = assigner(locations(), [gt]).pos_mask[0].split(levels)
        counts = [int(x.sum()) for x in found]
        assert counts[level] > 0, (side, counts)
        # The farthest edge of a location near the centre is about half the side away.
        assert all(count == 0 for i, count in enumerate(counts) if i > level), (side, counts)


def test_without_a_radius_all_locations_in_the_box_take_it():
    gt = instances([[16, 16, 56, 48]])
    everywhere = PointAssigner(num_classes=K, center_sampling_radius=0)(locations(), [gt])
    finest = locations()[0].get_centers()
    inside = ((finest > torch.tensor([16, 16])) & (finest < torch.tensor([56, 48]))).all(1)
    assert torch.equal(everywhere.pos_mask[0, : len(finest)], inside)
    near = PointAssigner(num_classes=K, center_sampling_radius=1.0)(locations(), [gt])
    assert 0 < near.pos_mask.sum() < everywhere.pos_mask.sum()


def test_boxes_without_area_and_images_without_boxes_are_background():
    gt = [instances([[20, 20, 20, 60]]), instances([])]
    assert not PointAssigner(num_classes=K)(locations(), gt).pos_mask.any()


def test_anchors_that_are_no_squares_are_refused():
    generator = DefaultAnchorGenerator(
        sizes=[[8]], aspect_ratios=[0.5, 1.0], strides=[8], offset=0.5
    )
    with pytest.raises(UserError, match=r"one square anchor per location.*ASPECT_RATIOS"):
        PointAssigner(num_classes=K)(generator([torch.zeros(1, 1, 4, 4)]), [instances([])])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CENTER_SAMPLING_RADIUS", -1.0),
        ("CENTER_SAMPLING_RADIUS", float("inf")),
        ("REGRESSION_RANGE", [8.0, 4.0]),
        ("REGRESSION_RANGE", [4.0]),
        ("REGRESSION_RANGE", [0.0, 4.0]),
    ],
)
def test_impossible_settings_name_the_key(key: str, value: object):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.RETINANET.ASSIGNER = "PointAssigner"
    cfg.MODEL.RETINANET[key] = value
    with pytest.raises(UserError, match=key):
        ASSIGNER_REGISTRY.build(cfg)
    with pytest.raises(UserError, match=key):
        validate_cfg(cfg)
