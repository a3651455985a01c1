"""mmdet's and ODTK's RetinaNet give the numbers of an independent forward after conversion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from retinanet_ext.errors import InputError
from retinanet_ext.weights.convert.common import Converted
from retinanet_ext.weights.convert.mmdet import from_mmdet, to_mmdet
from retinanet_ext.weights.convert.odtk import from_odtk
from retinanet_ext.weights.reading import WeightsError

from .conftest import detections_of, outputs_of, same_detections, spread
from .plain import mmdet_detections, mmdet_forward, odtk_detections, odtk_forward

CLASSES = 4
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
# For each of our anchors (sizes outside, ratios .5, 1, 2 inside), which one of theirs it is.
MMDET_ORDER = [r * 3 + s for s in range(3) for r in range(3)]
ODTK_ORDER = [s * 3 + r for s in range(3) for r in (2, 0, 1)]
ODTK = "ResNet50FPN"


def resnet_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of ResNet-50, without its classifier."""
    found: dict[str, tuple[int, ...]] = {}

    def add(conv: str, norm: str, out: int, channels: int, size: int) -> None:
        found[f"{prefix}{conv}.weight"] = (out, channels, size, size)
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{prefix}{norm}.{part}"] = (out,)
        found[f"{prefix}{norm}.num_batches_tracked"] = ()

    add("conv1", "bn1", 64, 3, 7)
    channels = 64
    for stage, count in enumerate((3, 4, 6, 3), start=1):
        width = 64 * 2 ** (stage - 1)
        for i in range(count):
            name = f"layer{stage}.{i}."
            add(f"{name}conv1", f"{name}bn1", width, channels, 1)
            add(f"{name}conv2", f"{name}bn2", width, width, 3)
            add(f"{name}conv3", f"{name}bn3", 4 * width, width, 1)
            if i == 0:
                add(f"{name}downsample.0", f"{name}downsample.1", 4 * width, channels, 1)
            channels = 4 * width
    return found


def with_bias(found: dict[str, tuple[int, ...]], name: str, shape: tuple[int, ...]) -> None:
    found[f"{name}.weight"], found[f"{name}.bias"] = shape, shape[:1]


def mmdet_weights(norm: bool = False) -> dict[str, Tensor]:
    """A file's state dict, by the documented list of names."""
    found = resnet_shapes("backbone.")
    for i, channels in enumerate((512, 1024, 2048)):
        with_bias(found, f"neck.lateral_convs.{i}.conv", (256, channels, 1, 1))
    for i, channels in enumerate((256, 256, 256, 2048, 256)):
        with_bias(found, f"neck.fpn_convs.{i}.conv", (256, channels, 3, 3))
    for tower in ("cls_convs", "reg_convs"):
        for i in range(4):
            name = f"bbox_head.{tower}.{i}"
            with_bias(found, f"{name}.conv", (256, 256, 3, 3))
            if norm:
                del found[f"{name}.conv.bias"]
                found[f"{name}.gn.weight"] = found[f"{name}.gn.bias"] = (256,)
    with_bias(found, "bbox_head.retina_cls", (9 * CLASSES, 256, 3, 3))
    with_bias(found, "bbox_head.retina_reg", (36, 256, 3, 3))
    return numbers(found)


def odtk_weights(box_numbers: int = 4) -> dict[str, Tensor]:
    start = f"backbones.{ODTK}."
    found = resnet_shapes(f"{start}features.")
    with_bias(found, f"{start}features.fc", (1000, 2048))
    for i, channels in ((3, 512), (4, 1024), (5, 2048)):
        with_bias(found, f"{start}lateral{i}", (256, channels, 1, 1))
        with_bias(found, f"{start}smooth{i}", (256, 256, 3, 3))
    with_bias(found, f"{start}pyramid6", (256, 2048, 3, 3))
    with_bias(found, f"{start}pyramid7", (256, 256, 3, 3))
    for head, out in (("cls_head", 9 * CLASSES), ("box_head", 9 * box_numbers)):
        for i in (0, 2, 4, 6):
            with_bias(found, f"{head}.{i}", (256, 256, 3, 3))
        with_bias(found, f"{head}.8", (out, 256, 3, 3))
    return numbers(found)


def numbers(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    state = spread({name: torch.zeros(shape) for name, shape in shapes.items()}, seed=3)
    for name in ("bbox_head.retina_cls.bias", "cls_head.8.bias"):
        if name in state:
            state[name] = state[name] - 1.5
    return state


def normalised(picture: Tensor, caffe: bool = False) -> Tensor:
    if caffe:
        return (picture.flip(0) - MEAN.flip(0).view(3, 1, 1))[None]
    return ((picture - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1))[None]


def in_our_order(level: Tensor, order: list[int]) -> Tensor:
    """Outputs (9 n, H, W) of a level as (R, n), with our order of anchors."""
    return level.unflatten(0, (9, -1))[order].permute(2, 3, 0, 1).flatten(0, 2)


def largest_difference(ours: list[Tensor], theirs: list[Tensor], order: list[int]) -> float:
    return max(
        float((a - in_our_order(b, order)).abs().max()) for a, b in zip(ours, theirs, strict=True)
    )


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "caffe": {"caffe": True},
    "relu": {"relu": True},
    "group norm": {"norm": True},
}


@pytest.mark.parametrize("case", CASES)
def test_mmdets_outputs_are_equal(case: str, built, picture: Tensor):
    settings = CASES[case]
    caffe, relu = settings.get("caffe", False), settings.get("relu", False)
    weights = mmdet_weights(settings.get("norm", False))
    text = f"style='{'caffe' if caffe else 'pytorch'}', relu_before_extra_convs={relu},"
    found = from_mmdet(weights, meta={"config": text, "CLASSES": ("a", "b", "c", "d")})
    assert found.classes == ["a", "b", "c", "d"]
    model = built(found)
    x = normalised(picture, caffe)
    if caffe:  # unscaled pixels make large numbers of these random weights
        x = x / 60
        found.model["backbone.bottom_up.stem.conv1.weight"] /= 60
        model = built(found)
    scores, boxes = mmdet_forward(weights, x, caffe, relu)
    logits, deltas = outputs_of(model, picture)
    assert largest_difference(logits, scores, MMDET_ORDER) < 1e-4
    assert largest_difference(deltas, boxes, MMDET_ORDER) < 1e-4
    if case == "plain":
        expected = mmdet_detections(scores, boxes, tuple(picture.shape[1:]))
        ours = detections_of(model, picture)
        assert len(ours["scores"]) > 20
        assert same_detections(ours, expected)


def test_odtks_outputs_and_detections_are_equal(built, picture: Tensor):
    weights = odtk_weights()
    found = from_odtk(weights, ["a", "b", "c", "d"])
    assert any("fc.weight" in note for note in found.notes)
    model = built(found)
    scores, boxes = odtk_forward(weights, ODTK, normalised(picture))
    logits, deltas = outputs_of(model, picture)
    assert largest_difference(logits, scores, ODTK_ORDER) < 1e-4
    assert largest_difference(deltas, boxes, ODTK_ORDER) < 1e-4
    expected = odtk_detections(scores, boxes, tuple(picture.shape[1:]))
    ours = detections_of(model, picture)
    assert len(ours["scores"]) > 20
    assert same_detections(ours, expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL__FPN__TOP_BLOCK_RELU", True),
        ("MODEL__RESNETS__STRIDE_IN_1X1", True),
        ("INPUT__FORMAT", "BGR"),
    ],
)
def test_each_key_of_mmdets_network_is_needed(key: str, value: Any, built, picture: Tensor):
    weights = mmdet_weights()
    found = from_mmdet(weights)
    scores, _ = mmdet_forward(weights, normalised(picture))
    logits, _ = outputs_of(built(found, **{key: value}), picture)
    assert largest_difference(logits, scores, MMDET_ORDER) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {
            "MODEL__ANCHOR_GENERATOR__CELL_ANCHORS": [],
            "MODEL__ANCHOR_GENERATOR__OCTAVE_BASE_SIZES": [32.0, 64.0, 128.0, 256.0, 512.0],
        },
        {"MODEL__ANCHOR_GENERATOR__OFFSET": 0.5},
        {"MODEL__RETINANET__CLIP_BEFORE_NMS": False},
    ],
    ids=str,
)
def test_each_key_of_odtks_boxes_is_needed(changes: dict[str, Any], built, picture: Tensor):
    found = from_odtk(odtk_weights(), ["a", "b", "c", "d"])
    right = detections_of(built(found), picture)
    assert not same_detections(right, detections_of(built(found, **changes), picture))


@pytest.mark.parametrize("order", [list(range(9)), MMDET_ORDER[::-1]], ids=["none", "other"])
def test_anchors_in_a_wrong_order_are_seen(order: list[int], picture: Tensor, built):
    weights = mmdet_weights()
    scores, _ = mmdet_forward(weights, normalised(picture))
    logits, _ = outputs_of(built(from_mmdet(weights)), picture)
    assert largest_difference(logits, scores, order) > 1e-3


@pytest.mark.parametrize("norm", [False, True])
def test_to_mmdet_and_back_every_bit_is_the_same(norm: bool):
    weights = {k: v for k, v in mmdet_weights(norm).items() if "num_batches" not in k}
    found = from_mmdet(weights)
    config = {"MODEL.ANCHOR_GENERATOR.CELL_ANCHORS": [], **found.config}
    config["MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES"] = [32.0, 64.0, 128.0, 256.0, 512.0]
    back, notes = to_mmdet(found.model, config, ())
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[k], v) for k, v in weights.items())
    assert "add_extra_convs='on_input', relu_before_extra_convs=False" in notes[0]
    with pytest.raises(InputError, match="CELL_ANCHORS is set"):
        to_mmdet(found.model, {**config, "MODEL.ANCHOR_GENERATOR.CELL_ANCHORS": [[1]]}, ())


def test_what_mmdet_has_beside_retinanet_is_refused_by_name():
    weights = mmdet_weights()
    separate = {**weights, "bbox_head.cls_convs.0.0.bn.weight": torch.ones(1)}
    with pytest.raises(WeightsError, match="RetinaSepBNHead"):
        from_mmdet(separate)
    with pytest.raises(WeightsError, match=r"mask_head\.conv\.weight"):
        from_mmdet({**weights, "mask_head.conv.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match="the lateral of C5"):
        from_mmdet(weights, meta={"config": "add_extra_convs='on_lateral'"})
    with pytest.raises(InputError, match="give pytorch or caffe"):
        from_mmdet(weights, style="keras")


def test_a_style_that_the_file_does_not_tell_is_said_to_be_a_guess():
    weights = mmdet_weights()
    assert any("--style caffe" in note for note in from_mmdet(weights).notes)
    found = from_mmdet(weights, style="caffe")
    assert not any("--style" in note for note in found.notes)
    assert found.config["INPUT.FORMAT"] == "BGR" and found.config["MODEL.RESNETS.STRIDE_IN_1X1"]


def test_rotated_boxes_and_other_numbers_of_anchors_are_refused():
    with pytest.raises(WeightsError, match="rotated boxes"):
        from_odtk(odtk_weights(box_numbers=6))
    weights = mmdet_weights()
    for part in ("weight", "bias"):
        weights[f"bbox_head.retina_reg.{part}"] = weights[f"bbox_head.retina_reg.{part}"][:24]
    with pytest.raises(WeightsError, match="24 numbers of boxes"):
        from_mmdet(weights)


def test_the_network_of_a_converted_file_is_as_large_as_the_file():
    found = from_mmdet(mmdet_weights())
    assert isinstance(found, Converted)
    assert found.config["MODEL.RESNETS.DEPTH"] == 50
    assert found.config["MODEL.RESNETS.WIDTH_PER_GROUP"] == 64
    assert found.config["MODEL.RETINANET.NUM_CLASSES"] == CLASSES
