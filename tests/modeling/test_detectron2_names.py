"""Code that knows Detectron2's RetinaNet finds its settings here, or is told what to change."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from retinanet_ext.modeling import RetinaNetExt
from tests.helpers.tiny import NINE_ANCHORS, tiny_cfg

from .test_retinanet import example


class RandomLogits(nn.Module):
    """A head whose boxes are the anchors and whose scores differ."""

    def forward(self, features):
        generator = torch.Generator().manual_seed(0)
        sizes = [x.shape[-2:] for x in features]
        logits = [torch.randn(1, 27, *size, generator=generator) for size in sizes]
        return logits, [torch.zeros(1, 36, *size) for size in sizes]


@pytest.fixture
def model() -> RetinaNetExt:
    model = build_model(tiny_cfg(keys=NINE_ANCHORS)).eval()
    model.head = RandomLogits()
    return model


def detections(model: RetinaNetExt):
    with torch.no_grad():
        return model([example()])[0]["instances"]


def test_settings_can_be_read(model):
    assert (model.test_score_thresh, model.test_topk_candidates) == (0.05, 1000)
    assert (model.test_nms_thresh, model.max_detections_per_image) == (0.5, 100)
    assert model.box2box_transform is model.decoder.box2box_transform
    assert model.input_format == "BGR" and model.vis_period == 0


def test_settings_take_effect_after_building(model):
    before = detections(model)
    assert len(before) == 100
    model.max_detections_per_image = 7
    assert len(detections(model)) == 7
    model.max_detections_per_image = 10**6
    model.test_score_thresh = before.scores[20].item()
    assert len(detections(model)) == 20
    model.test_score_thresh, model.test_nms_thresh = 0.0, 1.0
    everything = len(detections(model))
    model.test_topk_candidates = 3
    assert len(detections(model)) <= 3 * 5 < everything
    model.test_nms_thresh = 0.0
    assert len(detections(model)) < 3 * 5


def test_overrides_that_would_never_be_called_are_refused():
    with pytest.raises(TypeError, match=r"Own overrides forward_training.*losses\(self,"):

        class Own(RetinaNetExt):
            def forward_training(self, images, features, predictions, gt_instances):
                return {}

    with pytest.raises(TypeError, match="overrides losses with Detectron2's arguments"):

        class Theirs(RetinaNetExt):
            def losses(self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes):
                return {}

    class Fine(RetinaNetExt):
        def forward(self, batched_inputs):
            return self.forward_training(None, None, None, None)

        def forward_training(self, images, features, predictions, gt_instances):
            return {}

        def losses(self, anchors, outputs, targets):
            return {}


def test_an_override_in_a_mixed_in_class_is_refused_too():
    class TheirLosses:
        def losses(self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes):
            return {}

    with pytest.raises(TypeError, match="Mixed overrides losses with Detectron2's arguments"):
        type("Mixed", (TheirLosses, RetinaNetExt), {})


def test_label_anchors_with_detectron2s_arguments_is_refused_before_training():
    with pytest.raises(TypeError, match=r"label_anchors\(self, anchors, batched_inputs\)"):

        class Theirs(RetinaNetExt):
            def label_anchors(self, anchors, gt_instances):
                return [], []

    class Fine(RetinaNetExt):
        def label_anchors(self, anchors, batched_inputs):
            return super().label_anchors(anchors, batched_inputs)


@pytest.mark.parametrize("name", ["inference_single_image", "_decode_multi_level_predictions"])
def test_ways_to_decode_that_are_not_called_are_refused(name: str):
    with pytest.raises(TypeError, match=rf"Own overrides {name}, .*forward_inference\(self"):
        type("Own", (RetinaNetExt,), {name: lambda self, *args: []})


def test_instances_are_sent_to_the_assigner(model):
    anchors = model.anchor_generator([torch.zeros(1, 1, 4, 4)] * 5)
    gt = example()["instances"]
    with pytest.raises(TypeError, match=r"model\.assigner\(anchors, instances\)"):
        model.label_anchors(anchors, [gt])
    assert model.assigner(anchors, [gt]).labels.shape == (1, sum(map(len, anchors)))


def test_labels_in_detectron2s_form_are_refused(monkeypatch):
    model = build_model(tiny_cfg(keys=NINE_ANCHORS))
    monkeypatch.setattr(model, "label_anchors", lambda *_: ([torch.zeros(3)], [torch.zeros(3, 4)]))
    with pytest.raises(TypeError, match="return DenseTargets, got tuple"):
        model.train()([example()])
