"""torchvision's RetinaNet and what it is converted to give the same numbers, both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from retinanet_ext.errors import InputError
from retinanet_ext.weights.convert.common import Converted
from retinanet_ext.weights.convert.into_torchvision import to_torchvision
from retinanet_ext.weights.convert.torchvision import (
    COCO_IDS,
    COCO_NAMES,
    ORDER,
    from_torchvision,
)
from retinanet_ext.weights.reading import WeightsError

from .conftest import SIZE, detections_of, outputs_of, same_detections, spread

BUILDERS = {"v1": retinanet_resnet50_fpn, "v2": retinanet_resnet50_fpn_v2}
# Their anchor is s * 3 + r, ours r * 3 + s, where s is one of three sizes and r of three ratios.
THEIR_ORDER = [ORDER.index(i) for i in range(9)]


def torchvision_model(kind: str, num_classes: int = 91) -> Any:
    model = BUILDERS[kind](
        weights=None,
        weights_backbone=None,
        num_classes=num_classes,
        min_size=SIZE,
        max_size=2 * SIZE,
    ).eval()
    model.load_state_dict(spread(model.state_dict()))
    if kind == "v1":  # as its weights for COCO
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0
    return model


def state_of(model: Any, kind: str) -> dict[str, Tensor]:
    state = dict(model.state_dict())
    if kind == "v1":  # its batch norms are frozen ones, which do not count
        state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    return state


@pytest.fixture(scope="module", params=["v1", "v2"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Converted]:
    """A network of torchvision for COCO, and what it is converted to."""
    model = torchvision_model(request.param)
    with torch.no_grad():  # rows that are nothing find nothing
        rows = [i for i in range(91) if i not in COCO_IDS]
        model.head.classification_head.cls_logits.bias.view(9, 91)[:, rows] = -100.0
    return model, from_torchvision(state_of(model, request.param))


def their_outputs(model: Any, picture: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Logits (R, 91) and deltas (R, 4) of each level, in our order of anchors."""
    with torch.no_grad():
        images, _ = model.transform([picture / 255])
        assert images.tensors.shape[-2:] == picture.shape[-2:]
        features = list(model.backbone(images.tensors).values())
        outputs = model.head(features)
    counts = [9 * x.shape[-2] * x.shape[-1] for x in features]

    def in_our_order(levels: Tensor) -> list[Tensor]:
        return [x.unflatten(0, (-1, 9))[:, ORDER].flatten(0, 1) for x in levels[0].split(counts)]

    return in_our_order(outputs["cls_logits"]), in_our_order(outputs["bbox_regression"])


def largest_difference(left: list[Tensor], right: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))


def test_logits_and_deltas_of_every_level_are_equal(pair, built, picture: Tensor):
    theirs, found = pair
    model = built(found)
    (logits, deltas), (their_logits, their_deltas) = (
        outputs_of(model, picture),
        their_outputs(theirs, picture),
    )
    assert len(logits) == 5 and max(float(x.abs().max()) for x in deltas) > 0.3
    assert largest_difference(logits, [x[:, COCO_IDS] for x in their_logits]) < 1e-4
    assert largest_difference(deltas, their_deltas) < 1e-4


def test_detections_are_equal(pair, built, picture: Tensor):
    theirs, found = pair
    ours = detections_of(built(found), picture)
    with torch.no_grad():
        expected = theirs([picture / 255])[0]
    sides = expected["boxes"][:, 2:] - expected["boxes"][:, :2]
    has_area = (sides > 0).all(1)  # Detectron2 leaves out the others at the end
    expected = {k: v[has_area] for k, v in expected.items()}
    assert len(ours["scores"]) > 20
    expected["labels"] = torch.tensor([COCO_IDS.index(i) for i in expected["labels"]])
    assert same_detections(ours, expected)
    assert found.classes == COCO_NAMES


@pytest.mark.parametrize(
    "changes",
    [
        {"MODEL__RESNETS__NORM_EPS": 1e-3},
        {"MODEL__RESNETS__STRIDE_IN_1X1": True},
        {"MODEL__FPN__TOP_BLOCK_RELU": False},
        {"INPUT__FORMAT": "BGR"},
        {"MODEL__PIXEL_MEAN": [103.53, 116.28, 123.675]},
    ],
    ids=str,
)
def test_each_key_of_the_network_is_needed(pair, built, picture: Tensor, changes: dict[str, Any]):
    theirs, found = pair
    logits, _ = outputs_of(built(found, **changes), picture)
    expected = [x[:, COCO_IDS] for x in their_outputs(theirs, picture)[0]]
    assert largest_difference(logits, expected) > 1e-3


def test_the_eps_of_the_first_version_is_seen(built, picture: Tensor):
    model = torchvision_model("v1")
    found = from_torchvision(state_of(model, "v1"))
    assert found.config["MODEL.RESNETS.NORM_EPS"] == 0
    assert any("--norm-eps 1e-5" in note for note in found.notes)
    logits, _ = outputs_of(built(found, MODEL__RESNETS__NORM_EPS=1e-5), picture)
    expected = [x[:, COCO_IDS] for x in their_outputs(model, picture)[0]]
    assert largest_difference(logits, expected) > 1e-3
    given = from_torchvision(state_of(model, "v1"), norm_eps=1e-5)
    assert given.config["MODEL.RESNETS.NORM_EPS"] == 1e-5
    counted = from_torchvision(model.state_dict())  # of a network that trained its batch norms
    assert counted.config["MODEL.RESNETS.NORM_EPS"] == 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {
            "MODEL__ANCHOR_GENERATOR__CELL_ANCHORS": [],
            "MODEL__ANCHOR_GENERATOR__OCTAVE_BASE_SIZES": [32.0, 64.0, 128.0, 256.0, 512.0],
        },
        {"MODEL__RETINANET__CLIP_BEFORE_NMS": False},
        {"TEST__DETECTIONS_PER_IMAGE": 20},
    ],
    ids=str,
)
def test_each_key_of_the_detections_is_needed(
    pair, built, picture: Tensor, changes: dict[str, Any]
):
    _, found = pair
    right = detections_of(built(found), picture)
    assert not same_detections(right, detections_of(built(found, **changes), picture))


def test_an_anchor_in_a_wrong_order_is_seen(pair, built, picture: Tensor):
    theirs, found = pair
    swapped = [1, 0, *range(2, 9)]
    wrong = dict(found.model)
    name = "head.bbox_pred.weight"
    wrong[name] = wrong[name].unflatten(0, (9, 4))[swapped].flatten(0, 1)
    _, deltas = outputs_of(built(Converted(wrong, found.config)), picture)
    assert largest_difference(deltas, their_outputs(theirs, picture)[1]) > 1e-3


@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize("num_classes", [3, 91])
def test_there_and_back_every_bit_is_the_same(kind: str, num_classes: int):
    names = ["cat", "dog"] if num_classes == 3 else []
    found = from_torchvision(state_of(torchvision_model(kind, num_classes), kind), names)
    config = {**found.config, "MODEL.FPN.TOP_BLOCK_RELU": True}
    weights, notes = to_torchvision(found.model, config, found.classes)
    assert any(f"num_classes={num_classes}" in note for note in notes)
    model = BUILDERS[kind](weights=None, weights_backbone=None, num_classes=num_classes)
    model.load_state_dict(weights)  # by torchvision's own rules
    again = from_torchvision(weights, names)
    assert again.model.keys() == found.model.keys()
    assert all(torch.equal(again.model[k], v) for k, v in found.model.items())
    assert again.classes == found.classes


def test_old_names_are_read():
    model = torchvision_model("v1")
    state = state_of(model, "v1")
    old = {}
    for name, value in state.items():
        for i in range(4):
            name = name.replace(f"_head.conv.{i}.0.", f"_head.conv.{2 * i}.")
        for i in range(3):
            name = name.replace(f"inner_blocks.{i}.0.", f"inner_blocks.{i}.")
            name = name.replace(f"layer_blocks.{i}.0.", f"layer_blocks.{i}.")
        old[name] = value
    assert len(old) == len(state) and old.keys() != state.keys()
    new, of_old = from_torchvision(state), from_torchvision(old)
    assert all(torch.equal(of_old.model[k], v) for k, v in new.model.items())


def test_a_pretrained_detectron2_network_has_no_counterpart():
    found = from_torchvision(state_of(torchvision_model("v2", 3), "v2"), ["a", "b"])
    config = {**found.config, "MODEL.FPN.TOP_BLOCK_RELU": True}
    with pytest.raises(InputError, match="STRIDE_IN_1X1 is True"):
        to_torchvision(found.model, {**config, "MODEL.RESNETS.STRIDE_IN_1X1": True}, ())
    with pytest.raises(InputError, match="TOP_BLOCK_RELU is False"):
        to_torchvision(found.model, {**config, "MODEL.FPN.TOP_BLOCK_RELU": False}, ())
    biased = {**found.model, "head.cls_subnet.0.bias": torch.ones(256)}
    with pytest.raises(InputError, match=r"head.cls_subnet.0.bias is not 0"):
        to_torchvision(biased, config, ())


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda s: s.pop("head.regression_head.bbox_reg.bias"), "1 tensors of RetinaNet are not"),
        (lambda s: s.update({"roi_heads.mask.weight": torch.ones(1)}), "1 tensors are none of"),
        (lambda s: s.pop("backbone.body.layer3.5.conv1.weight"), r"\[3, 4, 5, 3\] residual"),
    ],
)
def test_other_networks_are_refused_by_their_tensors(change: Any, wanted: str):
    state = state_of(torchvision_model("v1", 3), "v1")
    change(state)
    with pytest.raises(WeightsError, match=wanted):
        from_torchvision(state)


def test_names_that_do_not_fit_the_rows_are_refused():
    state = state_of(torchvision_model("v1", 4), "v1")
    with pytest.raises(WeightsError, match="4 classes, but 2 names are given; give 4, or 3"):
        from_torchvision(state, ["a", "b"])
    assert from_torchvision(state, ["a", "b", "c"]).config["MODEL.RETINANET.NUM_CLASSES"] == 3
    assert from_torchvision(state, ["0", "a", "b", "c"]).config["MODEL.RETINANET.NUM_CLASSES"] == 4
