"""The assigner that goes by what is predicted, on numbers worked out by hand, and in the model."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances

from retinanet_ext import UserError, validate_cfg
from retinanet_ext import boxes as boxes_module
from retinanet_ext.modeling import TaskAlignedAssigner
from retinanet_ext.modeling.predictions import HeadPredictions
from retinanet_ext.registry import ASSIGNER_REGISTRY
from retinanet_ext.structures import HeadOutputs
from tests.helpers.tiny import NINE_ANCHORS, tiny_cfg

from ..test_retinanet import example

K = 3


class Said:
    """Predictions that are given, of one image."""

    def __init__(self, boxes: list, scores: list):
        self.rows, self.probs = torch.tensor(boxes), torch.tensor(scores)

    def boxes(self, image: int) -> torch.Tensor:
        return self.rows

    def scores(self, image: int, classes: torch.Tensor) -> torch.Tensor:
        return self.probs[:, classes]


def instances(boxes: list, classes: list[int]) -> Instances:
    gt = Instances((64, 64))
    gt.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    gt.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return gt


# Four anchors around the centres 5, 10, 15 and 40 on the diagonal.
ANCHORS = [Boxes(torch.tensor([[c - 4.0, c - 4, c + 4, c + 4] for c in (5, 10, 15, 40)]))]
GT = instances([[0, 0, 20, 20]], [1])
# IoUs with the object: 1, .5, .25 and, of the last, 1: its centre lies outside.
SAID = Said(
    [[0.0, 0, 20, 20], [0, 0, 20, 10], [0, 0, 10, 10], [0, 0, 20, 20]],
    [[0.9, 0.2, 0.9], [0.9, 0.6, 0.9], [0.9, 0.8, 0.9], [0.9, 0.9, 0.9]],
)


def test_the_best_aligned_anchors_in_the_object_are_positive():
    # s^1 u^1: .2, .3, .2 of the object's class 1; the fourth is not asked.
    one = TaskAlignedAssigner(num_classes=K, topk=1, beta=1.0)(ANCHORS, [GT], SAID)
    assert one.labels.tolist() == [[K, 1, K, K]]
    assert one.matched_idxs.tolist() == [[-1, 0, -1, -1]]
    # s^1 u^6: .2, .6/64, .8/4096.
    sharp = TaskAlignedAssigner(num_classes=K, topk=1)(ANCHORS, [GT], SAID)
    assert sharp.labels.tolist() == [[1, K, K, K]]
    by_score = TaskAlignedAssigner(num_classes=K, topk=1, beta=0.0)(ANCHORS, [GT], SAID)
    assert by_score.labels.tolist() == [[K, K, 1, K]]
    usual = TaskAlignedAssigner(num_classes=K)(ANCHORS, [GT], SAID)
    assert usual.labels.tolist() == [[1, 1, 1, K]]
    assert usual.boxes[0, :3].eq(GT.gt_boxes.tensor).all()


def test_the_class_target_is_the_alignment_scaled_to_the_best_iou():
    targets = TaskAlignedAssigner(num_classes=K, topk=2, beta=1.0)(ANCHORS, [GT], SAID)
    # Of equal alignments .2, .3, .2 two: the best gets the best IoU among both, the other 2/3.
    positive = targets.labels[0] == 1
    best = 1.0 if positive[0] else 0.5
    assert positive.sum() == 2 and positive[1]
    assert targets.quality[0, 1].item() == pytest.approx(best)
    other = targets.quality[0, positive & (torch.arange(4) != 1)]
    assert other.item() == pytest.approx(best * 2 / 3)
    assert targets.quality[0, ~positive].eq(0).all()
    largest = TaskAlignedAssigner(num_classes=K)(ANCHORS, [GT], SAID).quality
    assert largest[0, 0] == 1 and largest.max() <= 1


def test_a_shared_anchor_goes_to_the_object_that_its_box_fits_best(
    monkeypatch: pytest.MonkeyPatch,
):
    gt = instances([[0, 0, 20, 20], [0, 0, 20, 12], [0, 0, 20, 12]], [1, 2, 0])
    assigner = TaskAlignedAssigner(num_classes=K, beta=1.0)
    targets = assigner(ANCHORS, [gt], SAID)
    # IoUs with the second: .6 and 10/12; the third centre lies below it. The third object is the
    # same box, and comes later.
    assert targets.labels.tolist() == [[1, 2, 1, K]]
    assert targets.matched_idxs.tolist() == [[0, 1, 0, -1]]
    monkeypatch.setattr(boxes_module, "PAIRS_AT_ONCE", 1)
    again = assigner(ANCHORS, [gt], SAID)
    assert torch.equal(again.labels, targets.labels)
    assert torch.equal(again.quality, targets.quality)


def test_an_image_without_objects_is_background_and_bad_boxes_count_as_none():
    empty = TaskAlignedAssigner(num_classes=K)(ANCHORS, [instances([], [])], SAID)
    assert empty.labels.eq(K).all() and empty.quality.eq(0).all()
    nan, inf = float("nan"), float("inf")
    broken = Said([[nan] * 4, [0, 0, inf, inf], [0, 0, 20, 20], [0] * 4], [[0.5] * K] * 4)
    targets = TaskAlignedAssigner(num_classes=K)(ANCHORS, [GT], broken)
    assert targets.labels.tolist() == [[K, K, 1, K]]
    assert targets.quality.tolist() == [[0, 0, 1, 0]]


def test_predictions_are_what_the_head_says_in_the_order_of_the_anchors():
    torch.manual_seed(0)
    shapes, per_location = [(4, 6), (2, 3)], 2
    logits = [torch.randn(2, per_location * K, *x, requires_grad=True) for x in shapes]
    deltas = [torch.randn(2, per_location * 4, *x, requires_grad=True) * 0.1 for x in shapes]
    count = [x * y * per_location for x, y in shapes]
    corners = [torch.rand(x, 2) * 50 for x in count]
    anchors = [Boxes(torch.cat([x, x + 10], dim=1)) for x in corners]
    coder = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))
    said = HeadPredictions(HeadOutputs(logits, deltas), anchors, coder, K)
    flat = torch.cat([x.permute(0, 2, 3, 1).reshape(2, -1, K) for x in logits], dim=1)
    assert torch.equal(said.scores(1, torch.tensor([2, 0, 2])), flat[1][:, [2, 0, 2]].sigmoid())
    rows = torch.cat([x.permute(0, 2, 3, 1).reshape(2, -1, 4) for x in deltas], dim=1)
    expected = coder.apply_deltas(rows[1], Boxes.cat(anchors).tensor)
    assert torch.equal(said.boxes(1), expected)
    assert not said.boxes(1).requires_grad and not said.scores(0, torch.tensor([0])).requires_grad


def build(**retinanet):
    cfg = tiny_cfg(keys=NINE_ANCHORS)
    cfg.MODEL.RETINANET.ASSIGNER = "TaskAlignedAssigner"
    for key, value in retinanet.items():
        cfg.MODEL.RETINANET[key] = value
    validate_cfg(cfg)
    torch.manual_seed(0)
    return build_model(cfg).train()


def test_the_head_is_called_once_and_before_the_assigner():
    model = build(CLS_LOSS="QualityFocalLoss", FUSED_CLS_LOSS_MIN_CLASSES=0)
    calls = []
    model.head.register_forward_hook(lambda *args: calls.append("head"))
    assign = model.assigner

    class Noted:
        needs_predictions = True

        def __call__(self, anchors, gt, said):
            calls.append("assigner")
            assert said.boxes(0).shape == (sum(map(len, anchors)), 4)
            return assign(anchors, gt, said)

    model.assigner = Noted()
    losses = model([example()])
    assert calls == ["head", "assigner"]
    assert all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("loss", ["QualityFocalLoss", "VarifocalLoss"])
def test_losses_with_quality_learn_the_assigners_target(loss: str):
    model, seen = build(CLS_LOSS=loss), []
    forward = model.cls_loss.forward

    def noted(logits, targets, quality):
        seen.append((targets, quality))
        return forward(logits, targets, quality)

    model.cls_loss.forward = noted
    model([example()])
    (targets, quality) = seen[0]
    assert quality is targets.quality
    assert quality[targets.pos_mask].gt(0).all() and quality.max() <= 1


def test_a_step_that_moves_a_prediction_changes_who_learns():
    model = build(CLS_LOSS="QualityFocalLoss", TASK_ALIGNED_TOPK=1)
    sample, labels = example(), []
    assign = model.label_anchors
    model.label_anchors = lambda *args: labels.append(assign(*args)) or labels[-1]
    model([sample])
    positive = labels[0].pos_mask
    with torch.no_grad():  # the other way round: all boxes small, all alignments other
        model.head.bbox_pred.bias += torch.randn_like(model.head.bbox_pred.bias)
    model([sample])
    assert not torch.equal(labels[1].pos_mask, positive)


def test_without_predictions_it_says_what_to_choose():
    with pytest.raises(UserError, match="goes by what the model predicts"):
        TaskAlignedAssigner(num_classes=K)(ANCHORS, [GT])


@pytest.mark.parametrize("key", ["TOPK", "ALPHA", "BETA"])
def test_impossible_settings_name_the_key(key: str):
    cfg = tiny_cfg()
    cfg.MODEL.RETINANET.ASSIGNER = "TaskAlignedAssigner"
    value = 0 if key == "TOPK" else -1.0
    cfg.MODEL.RETINANET[f"TASK_ALIGNED_{key}"] = value
    for check in (validate_cfg, ASSIGNER_REGISTRY.build):
        with pytest.raises(UserError, match=f"TASK_ALIGNED_{key}"):
            check(cfg)


def test_a_box_for_each_class_is_refused_before_training():
    with pytest.raises(UserError, match=r"CLS_AGNOSTIC_BBOX_REG is False.*set it to True"):
        build(CLS_AGNOSTIC_BBOX_REG=False)
