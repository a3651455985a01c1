"""The compared models are what they are said to be."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import FrozenBatchNorm2d

from retinanet_ext.benchmark.inputs import level_features, make_batch
from retinanet_ext.benchmark.peers import (
    DETECTRON2,
    available_variants,
    build_pair,
    build_side,
    build_torchvision,
    torchvision_inputs,
)


@pytest.fixture(scope="module")
def pair(settings):
    return build_pair(settings)


def test_detectron2s_side_has_no_module_of_ours(settings):
    model = build_side(settings, DETECTRON2)
    assert not [m for m in model.modules() if type(m).__module__.startswith("retinanet_ext")]
    assert type(model).__module__.startswith("detectron2")


def test_both_sides_have_the_same_weights_and_anchors(pair, settings):
    theirs, ours = pair
    weights = ours.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in theirs.state_dict().items())
    features = level_features(ours, settings.size, 1)
    anchors = zip(*(m.anchor_generator(features) for m in pair), strict=True)
    assert all(torch.equal(a.tensor, b.tensor) for a, b in anchors)


def test_random_weights_detect_something_but_not_everywhere(pair, settings):
    theirs, _ = pair
    with torch.no_grad():
        theirs.eval()
        images = theirs.preprocess_image(make_batch(settings, 1))
        features = theirs.backbone(images.tensor)
        logits, deltas = theirs.head([features[name] for name in theirs.head_in_features])
        assert len(theirs(make_batch(settings, 1))[0]["instances"]) > 0
    scores = torch.cat([x.flatten() for x in logits]).sigmoid()
    assert 0.005 < (scores > 0.05).float().mean() < 0.05  # 2 % of so small an image
    assert 0.2 < torch.cat([x.flatten() for x in deltas]).std() < 0.4


def test_weights_of_the_config_are_loaded_by_both(pair, settings, tmp_path):
    state = pair[0].state_dict()
    state["head.cls_score.bias"] += 1
    torch.save({"model": state}, tmp_path / "model.pth")
    theirs, ours = build_pair(settings.with_keys({"MODEL.WEIGHTS": str(tmp_path / "model.pth")}))
    for model in (theirs, ours):
        assert torch.equal(model.head.cls_score.bias, state["head.cls_score.bias"])


def test_torchvisions_model_freezes_what_the_config_freezes_and_does_not_resize(settings):
    model = build_torchvision(settings)
    trained = {
        name.split(".")[2]
        for name, p in model.backbone.body.named_parameters(prefix="a.b")
        if p.requires_grad
    }
    assert trained == {"layer2", "layer3", "layer4"}
    norms = [m for m in model.backbone.body.modules() if "BatchNorm" in type(m).__name__]
    assert norms and all(isinstance(m, FrozenBatchNorm2d) for m in norms)
    images, targets = torchvision_inputs(make_batch(settings, 2), "cpu")
    sizes, _ = model.transform(images)
    assert sizes.image_sizes == [settings.size] * 2
    assert all(x.min() >= 0 and x.max() <= 1 for x in images)
    losses = model.train()(images, targets)
    assert all(value.isfinite() for value in losses.values())
    with torch.no_grad():
        assert len(model.eval()(images)[0]["boxes"]) > 0


@pytest.mark.parametrize(
    ("device", "names"),
    [("cpu", ["compiled"]), ("cuda", ["compiled", "graphs", "channels-last"])],
)
def test_variants_are_those_of_the_device(settings, device, names):
    cfg = settings.with_keys({"MODEL.DEVICE": device}).cfg
    assert [variant.name for variant in available_variants(cfg)] == names
