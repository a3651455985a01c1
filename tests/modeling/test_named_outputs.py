"""What a head predicts beside logits and deltas: carried by name, never guessed to be something."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from retinanet_ext.modeling import RetinaNetExt, RetinaNetHead
from retinanet_ext.modeling.postprocess.gather import gather_deltas
from retinanet_ext.registry import ASSIGNER_REGISTRY, CLS_LOSS_REGISTRY, DENSE_HEAD_REGISTRY
from retinanet_ext.structures import DenseTargets, HeadOutputs
from tests.helpers.tiny import NINE_ANCHORS, tiny_cfg

from .test_retinanet import example


class LogVarianceHead(RetinaNetHead):
    """A log variance for each delta, learned by a Gaussian likelihood of the wanted deltas."""

    def build_towers(self, make_tower):
        super().build_towers(make_tower)
        self.variance_pred = nn.Conv2d(16, 4 * max(self.level_anchors), 3, padding=1)

    def named_outputs(self, cls_features, bbox_features):
        return {"variance": self.predict(self.variance_pred, bbox_features)}

    def named_losses(self, outputs, targets, anchors):
        images, positives = targets.pos_mask.nonzero(as_tuple=True)
        variance = gather_deltas(outputs.named["variance"], images, positives)
        return {"loss_variance": F.softplus(variance).sum()}


class NamesQuality(RetinaNetHead):
    def named_outputs(self, cls_features, bbox_features):
        return {"quality": [x[:, :1] for x in bbox_features]}


class NamesADetectorsLoss(RetinaNetHead):
    def named_losses(self, outputs, targets, anchors):
        return {"loss_cls": outputs.logits[0].sum()}


class PairHead(RetinaNetHead):
    def forward(self, features):
        return tuple(super().forward(features))


class ThirdOutput(RetinaNetHead):
    def forward(self, features):
        logits, deltas = super().forward(features)
        return logits, deltas, [x[:, :9] for x in logits]


for entry in (LogVarianceHead, NamesQuality, NamesADetectorsLoss, PairHead, ThirdOutput):
    DENSE_HEAD_REGISTRY.register(entry)


def build(head: str = "RetinaNetHead", **retinanet) -> RetinaNetExt:
    cfg = tiny_cfg(keys=NINE_ANCHORS)
    cfg.MODEL.RETINANET.HEAD = head
    for key, value in retinanet.items():
        cfg.MODEL.RETINANET[key] = value
    torch.manual_seed(0)
    return build_model(cfg)


def same_weights(head: str) -> tuple[RetinaNetExt, RetinaNetExt]:
    """Detectors with this head and with the usual one."""
    own, usual = build(head), build()
    own.load_state_dict(usual.state_dict(), strict=False)
    return own, usual


def test_a_named_output_gets_its_loss_and_leaves_the_others_alone():
    own, usual = same_weights("LogVarianceHead")
    losses, expected = own.train()([example()]), usual.train()([example()])
    variance = losses.pop("loss_variance")
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    variance.backward()
    taught = {name for name, p in own.head.named_parameters() if p.grad is not None}
    assert "variance_pred.weight" in taught and "bbox_subnet.0.weight" in taught
    assert not any(name.startswith("cls") for name in taught)


def test_named_losses_are_divided_by_the_normalizer():
    with_one = build("LogVarianceHead", LOSS_NORMALIZER="constant", LOSS_NORMALIZER_VALUE=1.0)
    with_ten = build("LogVarianceHead", LOSS_NORMALIZER="constant", LOSS_NORMALIZER_VALUE=10.0)
    one, ten = (model.train()([example()])["loss_variance"] for model in (with_one, with_ten))
    torch.testing.assert_close(one, 10 * ten)


def test_a_named_output_leaves_scores_and_boxes_alone():
    own, usual = same_weights("LogVarianceHead")
    for model in (own, usual):
        torch.nn.init.zeros_(model.head.cls_score.bias)
    got, expected = (model.eval()([example()])[0]["instances"] for model in (own, usual))
    assert len(expected) > 10
    assert torch.equal(got.scores, expected.scores)
    assert torch.equal(got.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_losses_and_decoder_of_a_subclass_see_a_named_output(monkeypatch):
    seen = []

    class Sees(RetinaNetExt):
        def losses(self, anchors, outputs, targets):
            seen.append(outputs)
            return super().losses(anchors, outputs, targets)

    model = build("LogVarianceHead")
    model.__class__ = Sees
    model.train()([example()])
    decode = model.decoder
    model.decoder = lambda anchors, outputs, sizes: (
        seen.append(outputs) or decode(anchors, outputs, sizes)
    )
    model.eval()([example()])
    for outputs in seen:
        assert [x.shape[1] for x in outputs.named["variance"]] == [36] * 5
    assert len(seen) == 2


@pytest.mark.parametrize("training", [True, False])
def test_a_third_output_without_a_name_is_refused(training: bool):
    model = build("ThirdOutput").train(training)
    with pytest.raises(ValueError, match="ThirdOutput returned 3 outputs without names"):
        model([example()])


@pytest.mark.parametrize("training", [True, False])
def test_quality_is_no_name_for_something_else(training: bool):
    model = build("NamesQuality").train(training)
    with pytest.raises(ValueError, match=r"NamesQuality has an output named quality.*another name"):
        model([example()])
    model.quality_branch = "iou"
    model.head.__class__ = RetinaNetHead
    with pytest.raises(ValueError, match=r"QUALITY_BRANCH is 'iou', but .* no output named"):
        model([example()])


def test_a_head_may_not_take_the_name_of_a_loss_of_the_detector():
    with pytest.raises(ValueError, match="NamesADetectorsLoss gives loss_cls"):
        build("NamesADetectorsLoss").train()([example()])


def test_a_head_may_return_the_pair_of_detectron2s():
    own, usual = same_weights("PairHead")
    assert type(own.head([torch.zeros(1, 16, 8, 8)] * 5)) is tuple
    losses, expected = own.train()([example()]), usual.train()([example()])
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    got, expected = (model.eval()([example()])[0]["instances"] for model in (own, usual))
    assert torch.equal(got.scores, expected.scores)


def test_our_heads_work_in_detectron2s_detector():
    cfg = tiny_cfg(keys=NINE_ANCHORS)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    theirs, expected, inputs = build_model(cfg), build_model(cfg), [example()]
    expected.load_state_dict(theirs.state_dict())
    theirs.head = build().head
    assert not theirs.head.load_state_dict(expected.head.state_dict()).missing_keys
    with EventStorage():
        losses, expected_losses = theirs.train()(inputs), expected.train()(inputs)
    for name, value in expected_losses.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=0)
    with torch.no_grad():
        assert theirs.eval()(inputs)[0]["instances"].has("scores")


def outputs_seen_by(losses_of: type, **retinanet) -> HeadOutputs:
    """The outputs that the losses of this detector get."""
    seen: list[HeadOutputs] = []

    class Sees(losses_of):
        def losses(self, anchors, outputs, targets):
            seen.append(outputs)
            return super().losses(anchors, outputs, targets)

    model = build(**retinanet)
    model.__class__ = Sees
    model.train()([example()])
    return seen[0]


class TakesParts(RetinaNetExt):
    takes_partial_outputs = True


def test_own_losses_get_logits_and_deltas_unless_they_take_parts(monkeypatch):
    monkeypatch.setattr("retinanet_ext.modeling.speedups.sparse_tower.MAX_SHARE", 1.0)
    settings = {"FUSED_CLS_LOSS_MIN_CLASSES": 0}
    whole = outputs_seen_by(RetinaNetExt, **settings)
    assert len(whole.logits) == len(whole.deltas) == 5
    assert whole.cls_features is None and whole.positive_deltas is None
    parts = outputs_seen_by(TakesParts, **settings)
    assert parts.logits is None and parts.deltas is None
    assert len(parts.cls_features) == 5 and parts.positive_deltas.shape[1] == 4


def test_losses_set_on_the_detector_itself_get_logits_and_deltas():
    model, seen = build(FUSED_CLS_LOSS_MIN_CLASSES=0).train(), []
    model.losses = lambda anchors, outputs, targets: seen.append(outputs) or {}
    model([example()])
    assert seen[0].logits is not None and seen[0].deltas is not None


@ASSIGNER_REGISTRY.register()
class HalfWeights:
    def __init__(self, cfg):
        self.num_classes = cfg.MODEL.RETINANET.NUM_CLASSES

    def __call__(self, anchors, gt_instances):
        count = sum(len(x) for x in anchors)
        labels = torch.full((len(gt_instances), count), self.num_classes)
        labels[:, :7] = 1
        weights = torch.full(labels.shape, 0.5)
        boxes = torch.tensor([2.0, 2, 30, 40]).expand(*labels.shape, 4)
        return DenseTargets(labels, boxes, self.num_classes, weights=weights)


@CLS_LOSS_REGISTRY.register()
class WeightedCls(nn.Module):
    uses_weights = True

    def __init__(self, cfg):
        super().__init__()

    def forward(self, logits, targets):
        return logits[0].sum() * 0 + targets.weights.sum()


class WeightedBox(nn.Module):
    uses_weights = True

    def forward(self, deltas, anchors, gt_boxes, weights=None):
        assert len(deltas) == len(weights)
        return weights.sum()


def test_weights_reach_the_losses_that_use_them_and_are_refused_by_the_others():
    with pytest.raises(ValueError, match="the loss FocalLoss counts each"):
        build(ASSIGNER="HalfWeights").train()([example()])
    model = build(ASSIGNER="HalfWeights", CLS_LOSS="WeightedCls", LOSS_NORMALIZER="positives")
    with pytest.raises(ValueError, match="the loss SmoothL1 counts each"):
        model.train()([example()])
    model.box_loss = WeightedBox()
    losses = model([example()])
    assert losses["loss_box_reg"].item() == pytest.approx(0.5)  # seven halves by seven
    num_anchors = 9 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1)
    assert losses["loss_cls"].item() == pytest.approx(0.5 * num_anchors / 7)
