"""The quality branch: what it learns, and how it changes scores and their order."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances

from retinanet_ext import validate_cfg
from retinanet_ext.modeling import DenseDecoder, RetinaNetHead, SharedTowerHead
from retinanet_ext.modeling.criteria.quality_branch import centerness, quality_branch_loss
from retinanet_ext.modeling.postprocess.gather import gather_quality
from retinanet_ext.registry import DENSE_HEAD_REGISTRY
from retinanet_ext.structures import HeadOutputs
from tests.helpers.tiny import tiny_cfg

TRANSFORM = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
KINDS = ["iou", "centerness"]


def boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 20
    size = 10 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 30
    return torch.cat([corner, corner + size], dim=1)


def test_centerness_by_hand():
    gt = torch.tensor([[0.0, 0, 40, 20]]).expand(4, 4)
    # Centres (20, 10), (10, 10), (10, 5), (50, 10).
    anchors = torch.tensor(
        [[15.0, 5, 25, 15], [5.0, 5, 15, 15], [0.0, 0, 20, 10], [45.0, 5, 55, 15]]
    )
    expected = torch.tensor([1.0, math.sqrt(10 / 30), math.sqrt(10 / 30 * 5 / 15), 0.0])
    torch.testing.assert_close(centerness(anchors, gt), expected)


def test_centerness_of_odd_boxes_is_zero():
    gt = torch.tensor([[10.0, 10, 10, 10], [30.0, 30, 10, 10], [10.0, 0, 10, 40]])
    anchors = torch.tensor([[0.0, 0, 20, 20], [10.0, 10, 30, 30], [0.0, 10, 20, 30]])
    assert centerness(anchors, gt).tolist() == [0, 0, 0]
    assert centerness(anchors[:0], gt[:0]).shape == (0,)


def quality_by_hand(kind: str, deltas, anchor, gt) -> float:
    if kind == "centerness":
        x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
        sides = [(x - gt[0], gt[2] - x), (y - gt[1], gt[3] - y)]
        if min(min(pair) for pair in sides) <= 0:
            return 0.0
        return math.sqrt(math.prod(min(pair) / max(pair) for pair in sides))
    box = TRANSFORM.apply_deltas(torch.tensor([deltas]), torch.tensor([anchor]))[0].tolist()
    width = max(0.0, min(box[2], gt[2]) - max(box[0], gt[0]))
    height = max(0.0, min(box[3], gt[3]) - max(box[1], gt[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, gt)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_cross_entropy_with_the_quality(kind: str):
    anchors, gt = boxes(12, seed=0), boxes(12, seed=1)
    generator = torch.Generator().manual_seed(2)
    deltas = torch.randn(12, 4, generator=generator, dtype=torch.float64) * 0.2
    logits = torch.randn(12, generator=generator, dtype=torch.float64)
    logits.requires_grad_(), deltas.requires_grad_()
    loss = quality_branch_loss(kind, logits, deltas, anchors, gt, TRANSFORM)
    loss.backward()
    pairs = zip(deltas.tolist(), anchors.tolist(), gt.tolist(), strict=True)
    quality = [quality_by_hand(kind, *pair) for pair in pairs]
    assert len({q for q in quality if q > 0}) > 3
    p = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    expected = -sum(
        q * math.log(x) + (1 - q) * math.log(1 - x) for q, x in zip(quality, p, strict=True)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(
        logits.grad,
        torch.tensor(p, dtype=torch.float64) - torch.tensor(quality).double(),
        rtol=1e-5,
        atol=1e-6,
    )
    assert deltas.grad is None  # the box learns from its own loss


@pytest.mark.parametrize("kind", KINDS)
def test_no_positives_give_zero_with_a_gradient(kind: str):
    logits = torch.zeros(0, requires_grad=True)
    nothing = torch.zeros(0, 4)
    loss = quality_branch_loss(kind, logits, nothing, nothing, nothing, TRANSFORM)
    loss.backward()
    assert loss == 0 and logits.grad.shape == (0,)


@pytest.mark.parametrize("head_class", [RetinaNetHead, SharedTowerHead])
def test_head_adds_one_logit_per_anchor_from_the_box_tower(head_class):
    levels = [ShapeSpec(channels=8, stride=s) for s in (8, 16)]
    arguments = {"input_shape": levels, "num_classes": 5, "conv_dims": [8], "num_anchors": [3, 2]}
    assert "quality_pred.weight" not in head_class(**arguments).state_dict()
    head = head_class(**arguments, predicts_quality=True)
    features = [torch.randn(2, 8, 4, 4), torch.randn(2, 8, 2, 2)]
    quality = head(features).named["quality"]
    assert [tuple(x.shape) for x in quality] == [(2, 3, 4, 4), (2, 2, 2, 2)]
    parts = head.outputs(features, logits=False)
    assert torch.equal(parts.named["quality"][1], quality[1])
    sum(x.sum() for x in quality).backward()
    taught = {name.split(".")[0] for name, p in head.named_parameters() if p.grad is not None}
    tower = "bbox_subnet" if head_class is RetinaNetHead else "subnet"
    assert taught == {tower, "quality_pred"}


def test_logits_of_uneven_levels_are_gathered():
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 2, 3), (1, 2, 2), (2, 1, 2))
    levels = [torch.randn(2, *shape, generator=generator) for shape in shapes]
    dense = torch.cat([x.permute(0, 2, 3, 1).reshape(2, -1) for x in levels], dim=1)
    images = torch.randint(0, 2, (40,), generator=generator)
    anchors = torch.randint(0, dense.shape[1], (40,), generator=generator)
    assert torch.equal(gather_quality(levels, images, anchors), dense[images, anchors])


def decode(p: list[float], q: list[float], **changes) -> Instances:
    """Detections of boxes in a row: pairs 0-1 and 2-3 overlap, 2-3 are far from 0-1."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [50.0, 0, 60, 10], [51, 0, 61, 10]])
    logits, quality = (torch.tensor(x).logit().view(1, 1, 1, 4) for x in (p, q))
    decoder = DenseDecoder(box2box_transform=TRANSFORM, num_classes=1, **changes)
    outputs = HeadOutputs([logits], [torch.zeros(1, 4, 1, 4)], named={"quality": [quality]})
    return decoder([Boxes(anchors)], outputs, [(20, 70)])[0]


@pytest.mark.parametrize("nms_kind", ["per_class", "class_agnostic", "soft"])
def test_nms_ranks_by_the_root_of_class_times_quality(nms_kind: str):
    found = decode([0.9, 0.6, 0.8, 0.7], [0.1, 0.9, 0.5, 0.4], nms_kind=nms_kind)
    best = found[:2]
    torch.testing.assert_close(best.scores, torch.tensor([0.6 * 0.9, 0.8 * 0.5]).sqrt())
    assert best.pred_boxes.tensor[:, 0].tolist() == [1.0, 50.0]


def test_threshold_and_top_candidates_look_at_the_class_alone():
    p, q = [0.9, 0.04, 0.3, 0.2], [0.01, 0.99, 0.9, 0.9]
    found = decode(p, q, nms_thresh=1.0)
    assert found.pred_boxes.tensor[:, 0].tolist() == [50.0, 51.0, 0.0]
    found = decode(p, q, nms_thresh=1.0, topk_candidates=1)
    assert found.pred_boxes.tensor[:, 0].tolist() == [0.0]


def test_quality_that_is_not_finite_gives_no_detection():
    found = decode([0.9, 0.1, 0.8, 0.1], [math.nan, 0.5, 0.5, 0.5])
    assert found.pred_boxes.tensor[:, 0].tolist() == [50.0, 1.0]


def detector_cfg(kind: str, **retinanet):
    scales = {"MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": 3}
    return tiny_cfg(keys=scales, QUALITY_BRANCH=kind, **retinanet)


@pytest.mark.parametrize("fuse_from", [0, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_learns_the_quality_of_its_boxes(kind: str, fuse_from: int):
    # Detectron2's normalizer starts at 100 and falls, which would let the losses rise at first.
    normalizer = {"LOSS_NORMALIZER": "positives"}
    cfg = detector_cfg(kind, FUSED_CLS_LOSS_MIN_CLASSES=fuse_from, **normalizer)
    validate_cfg(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    for name, module in model.backbone.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and name.endswith("conv2.norm"):
            module.weight.fill_(0.2)  # or an untrained network's activations explode
    torch.nn.init.constant_(model.head.quality_pred.bias, -3.0)  # wrong, so there is much to learn
    gt = Instances((64, 64))
    gt.gt_boxes = Boxes(torch.tensor([[4.0, 4, 40, 50], [10.0, 8, 20, 18]]))
    gt.gt_classes = torch.tensor([0, 2])
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    batch = [{"image": image, "instances": gt, "height": 64, "width": 64}]
    # The branch alone, a convex problem: what else learns moves its targets.
    optimizer = torch.optim.SGD(model.head.quality_pred.parameters(), lr=0.003)
    history = []
    for _ in range(4):
        losses = model(batch)
        assert set(losses) == {"loss_cls", "loss_box_reg", "loss_quality"}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(losses["loss_quality"].item())
    assert history[0] > history[1] > history[2] > history[3]
    with torch.no_grad():
        model.head.cls_score.bias.fill_(0.0)
        model.head.quality_pred.weight.zero_()
        model.head.quality_pred.bias.fill_(math.log(0.25 / 0.75))
        model.head.cls_score.weight.zero_()
        found = model.eval()(batch)[0]["instances"]
    torch.testing.assert_close(found.scores, torch.full_like(found.scores, math.sqrt(0.5 * 0.25)))


def test_nonsense_is_refused_by_name():
    with pytest.raises(ValueError, match=r"QUALITY_BRANCH is 'IoU'.*'', iou, centerness"):
        validate_cfg(detector_cfg("IoU"))


def test_a_head_with_a_branch_is_told_what_it_learns():
    class AlwaysQuality(RetinaNetHead):
        @classmethod
        def from_config(cls, cfg, *args):
            return {**super().from_config(cfg, *args), "predicts_quality": True}

    DENSE_HEAD_REGISTRY.register(AlwaysQuality)
    build_model(detector_cfg("iou", HEAD="AlwaysQuality"))
    with pytest.raises(ValueError, match=r"AlwaysQuality has a quality_pred, but .*QUALITY_BRANCH"):
        build_model(detector_cfg("", HEAD="AlwaysQuality"))
