"""The box subnet at a few locations: outputs and gradients of the whole convolutions."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import Conv2d as NormConv2d
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from retinanet_ext.modeling.heads.build import RetinaNetHead, SharedTowerHead
from retinanet_ext.modeling.heads.towers import build_tower
from retinanet_ext.modeling.speedups.sparse_tower import outputs_at, plain_convs
from retinanet_ext.structures import DenseTargets

SIZES = [(9, 13), (5, 7), (1, 2)]
CHANNELS = 6


@pytest.fixture
def convs() -> list[nn.Conv2d]:
    torch.manual_seed(0)
    tower = build_tower(CHANNELS, [8, 5, 7], "", len(SIZES)).double()
    found = plain_convs(tower, nn.Conv2d(7, 12, 3, padding=1).double())
    assert found is not None and len(found) == 4
    return found


def make_features(num_images: int = 2, channels_last: bool = False) -> list[Tensor]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(num_images, CHANNELS, *size, dtype=torch.float64, generator=generator)
        .to(memory_format=layout)
        .requires_grad_()
        for size in SIZES
    ]


def whole(
    convs: list[nn.Conv2d], features: list[Tensor], counts: list[int], pairs: list[tuple[int, int]]
) -> Tensor:
    """The reference: whole convolutions, then a look-up for each pair, one by one."""
    rows = []
    maps = []
    for x in features:
        for conv in convs[:-1]:
            x = conv(x).relu()
        maps.append(convs[-1](x))
    for image, anchor in pairs:
        for x, count in zip(maps, counts, strict=True):
            of_level = x.shape[2] * x.shape[3] * count
            if anchor < of_level:
                location, slot = divmod(anchor, count)
                row, column = divmod(location, x.shape[3])
                width = x.shape[1] // max(counts)
                rows.append(x[image, slot * width : (slot + 1) * width, row, column])
                break
            anchor -= of_level
    return torch.stack(rows) if rows else maps[0].new_zeros(0, maps[0].shape[1] // max(counts))


def gradients(convs: list[nn.Conv2d], features: list[Tensor], rows: Tensor) -> list[Tensor]:
    inputs = [*features, *(x for conv in convs for x in conv.parameters())]
    seeds = torch.randn(rows.shape, dtype=rows.dtype, generator=torch.Generator().manual_seed(2))
    return list(torch.autograd.grad(rows, inputs, seeds, materialize_grads=True))


def check(convs: list[nn.Conv2d], features: list[Tensor], counts: list[int], pairs) -> None:
    images, anchors = (torch.tensor(x, dtype=torch.int64) for x in zip(*pairs, strict=True))
    found = outputs_at(convs, features, images, anchors, counts, max_share=1.0)
    expected = whole(convs, features, counts, pairs)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    for ours, theirs in zip(
        gradients(convs, features, found), gradients(convs, features, expected), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


# Corners, edges, the middle, the same location twice, every level, both images.
PAIRS = [(0, 0), (0, 38), (0, 39), (0, 3 * 60 + 1), (0, 3 * 60 + 2), (1, 351), (1, 400), (1, 461)]


@pytest.mark.parametrize("channels_last", [False, True])
def test_outputs_and_gradients_are_those_of_the_whole_convolutions(convs, channels_last):
    check(convs, make_features(channels_last=channels_last), [3, 3, 3], PAIRS)


def test_levels_may_differ_in_their_number_of_anchors(convs):
    # 117, then 2 x 35, then 3 x 2 anchors.
    pairs = [(0, 5), (1, 116), (1, 117), (0, 118), (0, 186), (1, 187), (1, 190), (1, 192)]
    check(convs, make_features(), [1, 2, 3], pairs)


def test_convolutions_without_bias_work(convs):
    for conv in convs:
        conv.bias = None
    check(convs, make_features(), [3, 3, 3], PAIRS)


def test_every_location_may_be_asked_for(convs):
    pairs = [(image, anchor) for image in range(2) for anchor in range(0, 462, 3)]
    check(convs, make_features(), [3, 3, 3], pairs)


def test_many_rows_are_taken_in_several_pieces(convs, monkeypatch):
    monkeypatch.setattr("retinanet_ext.modeling.speedups.row_conv.CHUNK_ROWS", 7)
    check(convs, make_features(), [3, 3, 3], PAIRS)


def test_no_positives_give_no_rows_and_zero_gradients(convs):
    features = make_features()
    none = torch.zeros(0, dtype=torch.int64)
    rows = outputs_at(convs, features, none, none, [3, 3, 3])
    assert rows is not None and rows.shape == (0, 4)
    for gradient in gradients(convs, features, rows):
        assert not gradient.any()


def test_features_that_need_no_gradient_get_none(convs):
    features = [x.detach() for x in make_features()]
    images, anchors = torch.tensor([0]), torch.tensor([20])
    rows = outputs_at(convs, features, images, anchors, [3, 3, 3])
    assert rows is not None
    rows.sum().backward()
    assert convs[0].weight.grad is not None and features[0].grad is None


def test_whole_convolutions_are_asked_for_where_most_of_the_pyramid_is_needed(convs):
    features = make_features()
    images, anchors = torch.tensor([0, 0, 1]), torch.tensor([150, 200, 400])
    assert outputs_at(convs, features, images, anchors, [3, 3, 3], max_share=0.9) is not None
    assert outputs_at(convs, features, images, anchors, [3, 3, 3], max_share=0.1) is None


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": 1, "padding": 0},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"padding_mode": "circular"},
    ],
)
def test_other_convolutions_are_left_alone(change):
    conv = nn.Conv2d(4, 4, **{"kernel_size": 3, "padding": 1, **change})
    plain = nn.Conv2d(4, 4, 3, padding=1)
    assert plain_convs(nn.Sequential(plain, nn.ReLU()), plain) is not None
    assert plain_convs(nn.Sequential(conv, nn.ReLU()), plain) is None
    assert plain_convs(nn.Sequential(plain, nn.ReLU()), conv) is None


def test_norms_activations_and_hooks_are_left_alone():
    plain = nn.Conv2d(4, 4, 3, padding=1)
    norm = NormConv2d(4, 4, 3, padding=1, norm=nn.BatchNorm2d(4))
    assert plain_convs(nn.Sequential(norm, nn.ReLU()), plain) is None
    assert plain_convs(build_tower(4, [4], "BN", 1), plain) is None
    assert plain_convs(nn.Sequential(plain, nn.Sigmoid()), plain) is None
    tower = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    assert plain_convs(tower, plain) is not None
    tower[1].register_forward_hook(lambda *_: None)
    assert plain_convs(tower, plain) is None


def test_convolutions_that_compute_something_else_are_left_alone():
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    plain, doubled = (kind(4, 4, 3, padding=1) for kind in (nn.Conv2d, Doubled))
    assert plain_convs(nn.Sequential(plain, nn.ReLU()), plain) is not None
    assert plain_convs(nn.Sequential(plain, nn.ReLU()), doubled) is None
    assert plain_convs(nn.Sequential(doubled, nn.ReLU()), plain) is None


def deltas_of_positives(head: nn.Module) -> Tensor | None:
    """What the head gives of one positive where whole maps would cost more."""
    features = [torch.randn(1, 4, 9, 9)]
    targets = DenseTargets(torch.full((1, 243), 2), torch.zeros(1, 243, 4), num_classes=2)
    targets.labels[0, 100] = 1
    return head.partial_outputs(features, targets, {"positive_deltas"}).positive_deltas


def test_a_head_without_a_plain_box_subnet_of_its_own_gives_whole_deltas():
    shapes = [ShapeSpec(channels=4, stride=8)]
    arguments = {"input_shape": shapes, "num_classes": 2, "num_anchors": 3, "conv_dims": [4]}
    found = deltas_of_positives(RetinaNetHead(**arguments))
    assert found is not None and found.shape == (1, 4)
    assert deltas_of_positives(RetinaNetHead(**arguments, norm="BN")) is None
    assert deltas_of_positives(SharedTowerHead(**arguments)) is None


def test_further_outputs_need_the_whole_box_subnet():
    class Named(RetinaNetHead):
        partial_outputs = RetinaNetHead.partial_outputs

        def named_outputs(self, cls_features, bbox_features):
            return {"norm": [x.norm() for x in bbox_features]}

    shapes = [ShapeSpec(channels=4, stride=8)]
    arguments = {"input_shape": shapes, "num_classes": 2, "num_anchors": 3, "conv_dims": [4]}
    assert deltas_of_positives(Named(**arguments)) is None
    assert deltas_of_positives(RetinaNetHead(**arguments, predicts_quality=True)) is None
