"""YOLO: counts, coder, shape matching and losses by their known values, the whole trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ancestors.yolo import (
    V2_COCO,
    V2_VOC,
    V3,
    GridAssigner,
    PositivesBCE,
    YOLOBoxLoss,
    YOLOBoxTransform,
    YOLOHead,
    as_cell_anchors,
    v1_outputs,
)
from ancestors.yolo.anchors import V2_STRIDE
from ancestors.yolo.assigner import shape_iou
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, pairwise_iou

from retinanet_ext.errors import InputError
from retinanet_ext.modeling import RetinaNetAnchorGenerator
from retinanet_ext.structures import DenseTargets
from tests.helpers.ancestors import configured, finds_what_it_learned, objects, trained_losses

pytestmark = pytest.mark.usefixtures("ancestors")


def anchors_of(cells, strides, side: int) -> list[Boxes]:
    generator = RetinaNetAnchorGenerator(
        cell_anchors=cells, aspect_ratios=[[1.0]], strides=strides, offset=0.5
    )
    return generator([torch.zeros(1, 1, side // x, side // x) for x in strides])


def v3_anchors(side: int = 416) -> list[Boxes]:
    return anchors_of(as_cell_anchors(V3), [8, 16, 32], side)


def test_version_1_gives_1470_numbers_for_98_boxes():
    assert v1_outputs() == (1470, 98)


@pytest.mark.parametrize("shapes", [V2_VOC, V2_COCO])
def test_version_2_has_845_boxes(shapes):
    cells = as_cell_anchors([shapes], cell=V2_STRIDE)
    assert sum(map(len, anchors_of(cells, [V2_STRIDE], 416))) == 845


def test_version_2_for_voc_has_125_channels():
    head = YOLOHead(input_shape=[ShapeSpec(channels=4)], num_classes=20, num_anchors=5)
    outputs = head([torch.zeros(1, 4, 13, 13)])
    maps = (outputs.logits[0], outputs.deltas[0], outputs.named["quality"][0])
    assert sum(x.shape[1] for x in maps) == 125


@pytest.mark.parametrize(("side", "rows"), [(320, 6300), (416, 10647), (608, 22743)])
def test_version_3_has_so_many_rows(side, rows):
    assert sum(map(len, v3_anchors(side))) == rows


ANCHOR = torch.tensor([[112.0 - 58, 80.0 - 45, 112.0 + 58, 80.0 + 45]])  # 116 x 90, cell (3, 2)
STRIDE = torch.tensor([32.0])


def decoded(*t: float) -> torch.Tensor:
    return YOLOBoxTransform().apply_deltas(torch.tensor([t]), ANCHOR, STRIDE)[0]


def test_zeros_are_the_anchor_in_the_middle_of_its_cell():
    assert decoded(0, 0, 0, 0).tolist() == pytest.approx([54, 35, 170, 125])


def test_decoded_boxes_are_those_computed_by_hand():
    x1, y1, x2, y2 = decoded(0.2, -0.1, 0.3, -0.2).tolist()
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((113.5947, 79.2007), abs=1e-3)
    assert (x2 - x1, y2 - y1) == pytest.approx((156.5836, 73.6858), abs=1e-3)


def test_decode_undoes_encode_within_the_cell():
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(50, 2, generator=generator) * 28 + torch.tensor([98.0, 66.0])
    halves = torch.rand(50, 2, generator=generator) * 80 + 4
    boxes = torch.cat([centres - halves, centres + halves], dim=1)
    anchors, strides = ANCHOR.expand(50, 4), STRIDE.expand(50)
    coder = YOLOBoxTransform()
    deltas = coder.get_deltas(anchors, boxes, strides=strides)
    torch.testing.assert_close(
        coder.apply_deltas(deltas, anchors, strides=strides), boxes, rtol=1e-4, atol=1e-3
    )


def test_a_centre_never_leaves_its_cell():
    for t in (-60.0, 60.0):
        x1, y1, x2, y2 = decoded(t, t, 0, 0).tolist()
        assert 96 <= (x1 + x2) / 2 <= 128 and 64 <= (y1 + y2) / 2 <= 96


def at(centre: tuple[float, float], width: float, height: float) -> list[float]:
    (x, y), (w, h) = centre, (width / 2, height / 2)
    return [x - w, y - h, x + w, y + h]


@pytest.mark.parametrize(
    ("size", "shape", "iou"),
    [
        ((50, 50), (62, 45), 0.7401),
        ((20, 20), (16, 30), 0.5714),
        ((300, 300), (373, 326), 0.7401),
        ((100, 30), (62, 45), 0.4733),
    ],
)
def test_an_object_gets_the_anchor_of_the_best_shape(size, shape, iou):
    shapes = torch.tensor([x for level in V3 for x in level]).float()
    fits = shape_iou(torch.tensor([size]).float(), shapes)[0]
    assert fits.max().item() == pytest.approx(iou, abs=1e-4)
    anchors = v3_anchors()
    centre = (203.0, 211.0)
    targets = GridAssigner(num_classes=1)(anchors, [objects([at(centre, *size)], [0], (416, 416))])
    (index,) = targets.pos_mask[0].nonzero().flatten().tolist()
    x1, y1, x2, y2 = Boxes.cat(anchors).tensor[index].tolist()
    assert (x2 - x1, y2 - y1) == shape
    # The centre lies in the anchor's cell.
    level = next(i for i, x in enumerate(V3) if shape in x)
    stride = (8, 16, 32)[level]
    cell = [c // stride for c in centre]
    assert [((x1 + x2) / 2) // stride, ((y1 + y2) / 2) // stride] == cell


@pytest.mark.parametrize("seed", range(4))
def test_each_object_has_one_positive_over_all_levels(seed):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(13 * 13, generator=generator)[:6]
    boxes = [
        at(
            ((int(c) % 13) * 32 + 11.0, (int(c) // 13) * 32 + 16.0),
            *(20 + 60 * torch.rand(2, generator=generator)).tolist(),
        )
        for c in cells
    ]
    anchors = v3_anchors()
    targets = GridAssigner(num_classes=2)(anchors, [objects(boxes, [1] * 6, (416, 416))])
    assert sorted(targets.matched_idxs[0][targets.pos_mask[0]].tolist()) == list(range(6))
    iou = pairwise_iou(Boxes(torch.tensor(boxes)), Boxes.cat(anchors)).amax(dim=0)
    expected = torch.where(iou >= 0.5, -1, 2)
    others = ~targets.pos_mask[0]
    assert torch.equal(targets.labels[0][others], expected[others])


def test_of_two_objects_with_one_anchor_the_better_shape_keeps_it():
    anchors = v3_anchors()
    same_cell = [at((203.0, 211.0), 60, 60), at((202.0, 210.0), 60, 46)]
    for boxes, winner in ((same_cell, 1), (same_cell[::-1], 0)):
        targets = GridAssigner(num_classes=2)(anchors, [objects(boxes, [0, 1], (416, 416))])
        assert targets.matched_idxs[0][targets.pos_mask[0]].tolist() == [winner]


def test_a_centre_on_or_over_the_edge_has_the_next_cell():
    anchors = v3_anchors(64)
    for centre, cell in (((32.0, 32.0), (1, 1)), ((70.0, -3.0), (1, 0)), ((64.0, 64.0), (1, 1))):
        targets = GridAssigner(num_classes=1)(
            anchors, [objects([at(centre, 300, 300)], [0], (64, 64))]
        )
        (index,) = targets.pos_mask[0].nonzero().flatten().tolist()
        box = Boxes.cat(anchors).tensor[index]
        assert ((box[:2] + box[2:]) / 2 // 32).tolist() == list(cell)


def test_the_background_teaches_no_class():
    logits = torch.randn(1, 2, 1, 3, requires_grad=True)
    targets = DenseTargets(torch.tensor([[1, 2, -1]]), torch.zeros(1, 3, 4), 2)
    loss = PositivesBCE()([logits], targets)
    expected = F.binary_cross_entropy_with_logits(
        logits[0, :, 0, 0], torch.tensor([0.0, 1.0]), reduction="sum"
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None and logits.grad[..., 1:].eq(0).all()


def test_the_box_loss_is_lowest_at_the_box():
    boxes = torch.tensor([at((105.0, 90.0), 60, 40)])
    deltas = YOLOBoxTransform().get_deltas(ANCHOR, boxes, STRIDE).requires_grad_()
    YOLOBoxLoss()(deltas, ANCHOR, boxes, strides=STRIDE).backward()
    assert deltas.grad is not None and deltas.grad.abs().max() < 1e-5
    off = YOLOBoxLoss()(deltas.detach() + 0.5, ANCHOR, boxes, strides=STRIDE)
    assert off > YOLOBoxLoss()(deltas.detach(), ANCHOR, boxes, strides=STRIDE)


def test_no_object_costs_nothing_and_has_a_gradient():
    deltas = torch.zeros(0, 4, requires_grad=True)
    none = torch.zeros(0, 4)
    YOLOBoxLoss()(deltas, none, none, strides=torch.zeros(0)).backward()


def test_the_head_is_for_objectness():
    with pytest.raises(InputError, match=r"QUALITY_BRANCH is 'iou'.*objectness"):
        configured("quickstart_yolo", "MODEL.RETINANET.QUALITY_BRANCH", "iou")


def test_it_learns_two_scenes():
    model, first, last = trained_losses("quickstart_yolo", size=(192, 256), iterations=6)
    for name in ("loss_cls", "loss_box_reg", "loss_quality"):
        assert last[name] < first[name], (first, last)
    decoder = model.decoder
    assert (decoder.score_rule, decoder.candidates_by) == ("pq", "score")


@pytest.mark.slow
def test_it_finds_what_it_learned():
    assert finds_what_it_learned("quickstart_yolo", size=(192, 256))
