"""Decoding: the detections of Detectron2, order, limits, and values that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, ImageList
from torch import nn

from retinanet_ext.modeling import DenseDecoder, RetinaNetAnchorGenerator
from retinanet_ext.modeling.postprocess.gather import (
    gather_by_level,
    gather_deltas,
    gather_from_each,
    gather_from_whole,
)
from retinanet_ext.structures import HeadOutputs

A, K, H, W = 2, 3, 4, 5


def random_level(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(A * K, H, W, generator=generator) * 2 - 2
    deltas = torch.randn(A * 4, H, W, generator=generator) * 0.1
    corner = torch.rand(H * W * A, 2, generator=generator) * 50
    anchors = torch.cat([corner, corner + 10], dim=1)
    return logits, deltas, Boxes(anchors)


def decoder(**changes) -> DenseDecoder:
    arguments = {"box2box_transform": Box2BoxTransform((1.0, 1, 1, 1)), "num_classes": K, **changes}
    return DenseDecoder(**arguments)


def dense_scores(logits: torch.Tensor) -> torch.Tensor:
    """(A*K, H, W) to scores (H*W*A, K), the long way."""
    return logits.view(A, K, H, W).permute(2, 3, 0, 1).reshape(-1, K).sigmoid()


def rows_of(deltas: torch.Tensor) -> torch.Tensor:
    """(A*4, H, W) to (H*W*A, 4), the long way."""
    return deltas.view(A, 4, H, W).permute(2, 3, 0, 1).reshape(-1, 4)


def pyramid(num_images: int, mean: float = -3.0):
    """Anchor generator, logits and deltas of three levels for images of up to 96 x 128 pixels."""
    generator = RetinaNetAnchorGenerator(
        octave_base_sizes=[16.0, 32.0, 64.0],
        scales_per_octave=1,
        aspect_ratios=[[0.5, 1.0]],
        strides=[8, 16, 32],
    )
    sizes = [(12, 16), (6, 8), (3, 4)]
    logits = [torch.randn(num_images, A * K, h, w) * 2 + mean for h, w in sizes]
    deltas = [torch.randn(num_images, A * 4, h, w) * 0.3 for h, w in sizes]
    return generator, logits, deltas


def detectron2_detections(generator, logits, deltas, image_sizes, **changes):
    model = RetinaNet(
        backbone=nn.Identity(),
        head=nn.Identity(),
        head_in_features=["p3", "p4", "p5"],
        anchor_generator=generator,
        box2box_transform=Box2BoxTransform((1.0, 1, 1, 1)),
        anchor_matcher=None,
        num_classes=K,
        pixel_mean=[0.0],
        pixel_std=[1.0],
        test_score_thresh=changes.get("score_thresh", 0.05),
        test_topk_candidates=changes.get("topk_candidates", 1000),
        test_nms_thresh=changes.get("nms_thresh", 0.5),
        max_detections_per_image=changes.get("max_detections", 100),
    )
    images = ImageList(torch.zeros(len(image_sizes), 3, 96, 128), image_sizes)
    with torch.no_grad():
        return model.forward_inference(images, logits, [logits, deltas])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"score_thresh": 0.0},
        {"score_thresh": 0.6, "max_detections": 1000},
        {"score_thresh": 0.0, "max_detections": 1000},  # more than 1000 boxes, all of them kept
        {"nms_thresh": 1.0},
        {"nms_thresh": 0.0},
        {"topk_candidates": 3, "max_detections": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("num_images", [1, 3])
def test_detections_are_those_of_detectron2(num_images: int, memory_format, changes: dict):
    generator, logits, deltas = pyramid(num_images)
    image_sizes = [(96, 128), (90, 100), (64, 128)][:num_images]
    expected = detectron2_detections(generator, logits, deltas, image_sizes, **changes)
    logits, deltas = (
        [x.contiguous(memory_format=memory_format) for x in levels] for levels in (logits, deltas)
    )
    found = decoder(**changes)(generator(logits), HeadOutputs(logits, deltas), image_sizes)
    assert len(found) == num_images
    for got, want in zip(found, expected, strict=True):
        assert len(want) > 5
        assert got.image_size == want.image_size
        assert got.pred_classes.tolist() == want.pred_classes.tolist()
        torch.testing.assert_close(got.scores, want.scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(got.pred_boxes.tensor, want.pred_boxes.tensor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_give_nearly_the_same(dtype: torch.dtype):
    generator, logits, deltas = pyramid(2)
    # As bfloat16 sees them, so that no score moves across the threshold.
    logits, deltas = ([x.bfloat16().float() for x in levels] for levels in (logits, deltas))
    sizes = [(96, 128)] * 2
    expected = decoder()(generator(logits), HeadOutputs(logits, deltas), sizes)
    logits, deltas = ([x.to(dtype) for x in levels] for levels in (logits, deltas))
    for got, want in zip(
        decoder()(generator(logits), HeadOutputs(logits, deltas), sizes), expected, strict=True
    ):
        assert got.pred_boxes.tensor.dtype == torch.float32
        torch.testing.assert_close(got.scores.float(), want.scores)
        torch.testing.assert_close(got.pred_boxes.tensor, want.pred_boxes.tensor)


def test_no_image_gives_no_result():
    generator, logits, deltas = pyramid(0)
    assert decoder()(generator(logits), HeadOutputs(logits, deltas), []) == []


def test_one_image_without_detections_leaves_the_others_alone():
    generator, logits, deltas = pyramid(3)
    sizes = [(96, 128)] * 3
    expected = decoder()(generator(logits), HeadOutputs(logits, deltas), sizes)
    for level in logits:
        level[1] = -100.0
    found = decoder()(generator(logits), HeadOutputs(logits, deltas), sizes)
    assert [len(x) for x in found] == [len(expected[0]), 0, len(expected[2])]
    assert torch.equal(found[2].pred_boxes.tensor, expected[2].pred_boxes.tensor)


def dense_deltas(deltas: list[torch.Tensor]) -> torch.Tensor:
    """L tensors (N, A*4, H, W) to (N, R, 4), the long way."""
    levels = [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas]
    return torch.cat(levels, dim=1)


def some_pairs(deltas: list[torch.Tensor], count: int = 200):
    """Images and anchors of all levels; the first, the last, and one of them twice."""
    num_images, num_anchors = dense_deltas(deltas).shape[:2]
    images = torch.randint(0, num_images, (count,))
    anchors = torch.randint(0, num_anchors, (count,))
    anchors[0], anchors[1] = 0, num_anchors - 1
    images[3], anchors[3] = images[2], anchors[2]
    return images, anchors


def gather_at_once(deltas, images, anchors):
    return gather_from_whole(deltas, images, anchors, 4)


def gather_from_each_level(deltas, images, anchors):
    return gather_from_each(deltas, images, anchors, 4, torch.arange(4))


def gather_by_levels(deltas, images, anchors):
    return gather_by_level(deltas, images, anchors, 4, torch.arange(4))


GATHERS = [gather_deltas, gather_at_once, gather_from_each_level, gather_by_levels]


@pytest.mark.parametrize("gather", GATHERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_positive_deltas_and_their_gradients_equal_permute_and_index(memory_format, gather):
    _, _, deltas = pyramid(2)
    images, anchors = some_pairs(deltas)
    weight = torch.randn(len(images), 4)
    ours = [x.clone(memory_format=memory_format).requires_grad_() for x in deltas]
    theirs = [x.clone().requires_grad_() for x in deltas]
    got, expected = gather(ours, images, anchors), dense_deltas(theirs)
    assert torch.equal(got, expected[images, anchors])
    (got * weight).sum().backward()
    (expected[images, anchors] * weight).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
        assert a.grad.any()


@pytest.mark.parametrize("gather", GATHERS)
def test_no_positive_still_reaches_every_level(gather):
    _, _, deltas = pyramid(2)
    deltas = [x.requires_grad_() for x in deltas]
    none = torch.zeros(0, dtype=torch.int64)
    rows = gather(deltas, none, none)
    assert rows.shape == (0, 4)
    rows.sum().backward()
    assert all(x.grad is not None and not x.grad.any() for x in deltas)


@pytest.mark.parametrize("gather", GATHERS)
def test_values_of_other_anchors_do_not_leak_into_gradients(gather):
    _, _, deltas = pyramid(1)
    deltas = [x.requires_grad_() for x in deltas]
    with torch.no_grad():
        for level in deltas:
            level[0, :, 0, 0], level[0, :, -1, -1] = math.nan, math.inf
    anchors = torch.tensor([50, 12 * 16 * A + 30, (12 * 16 + 6 * 8) * A + 7])
    rows = gather(deltas, torch.zeros_like(anchors), anchors)
    rows.sum().backward()
    assert rows.isfinite().all()
    assert [x.grad.sum().item() for x in deltas] == [4, 4, 4]


def test_positive_deltas_are_at_least_float32():
    _, _, deltas = pyramid(2)
    images, anchors = some_pairs(deltas)
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        changed = [x.to(dtype) for x in deltas]
        rows = gather_deltas(changed, images, anchors)
        assert rows.dtype == expected
        assert torch.equal(rows, dense_deltas(changed)[images, anchors].to(expected))


def test_gathering_reads_nothing_back_from_the_device():
    # Tensors of the meta device have no values that could be.
    deltas = [x.to("meta").requires_grad_() for x in pyramid(2)[2]]
    indices = torch.zeros(9, dtype=torch.int64, device="meta")
    rows = gather_deltas(deltas, indices, indices)
    rows.sum().backward()
    assert rows.shape == (9, 4)


def test_detections_are_sorted_limited_and_decoded():
    logits, deltas, anchors = random_level()
    result = decoder(nms_thresh=1.0, max_detections=5)(
        [anchors], HeadOutputs([logits[None]], [deltas[None]]), [(60, 60)]
    )[0]
    scores, order = dense_scores(logits).flatten().sort(descending=True)
    torch.testing.assert_close(result.scores, scores[:5])
    assert result.pred_classes.tolist() == (order[:5] % K).tolist()
    rows = order[:5] // K
    boxes = Box2BoxTransform((1.0, 1, 1, 1)).apply_deltas(
        rows_of(deltas)[rows], anchors.tensor[rows]
    )
    torch.testing.assert_close(result.pred_boxes.tensor, boxes)
    assert result.image_size == (60, 60)


def test_nms_is_per_class():
    # Three equal boxes: two of class 0, one of class 1.
    anchors = Boxes(torch.tensor([[0.0, 0, 10, 10]] * 3))
    logits = torch.full((3 * K, 1, 1), -9.0)
    logits[0 * K + 0], logits[1 * K + 0], logits[2 * K + 1] = 2.0, 3.0, 1.0
    outputs = HeadOutputs([logits[None]], [torch.zeros(1, 12, 1, 1)])
    result = decoder()([anchors], outputs, [(20, 20)])[0]
    assert result.pred_classes.tolist() == [0, 1]
    assert result.scores[0].item() == pytest.approx(1 / (1 + math.exp(-3.0)))


@pytest.mark.parametrize("nms_kind", ["per_class", "class_agnostic", "soft"])
def test_no_candidate_gives_an_empty_result(nms_kind: str):
    logits, deltas, anchors = random_level()
    decode = decoder(nms_kind=nms_kind)
    result = decode([anchors], HeadOutputs([logits[None] - 100], [deltas[None]]), [(60, 60)])[0]
    assert len(result) == 0 and result.pred_boxes.tensor.shape == (0, 4)


def test_values_that_are_not_finite_are_left_out():
    logits, deltas, anchors = random_level()
    clean = decoder()([anchors], HeadOutputs([logits[None]], [deltas[None]]), [(60, 60)])[0]
    logits[0, 0, 0] = math.nan
    deltas[0, 1, :] = math.inf
    result = decoder()([anchors], HeadOutputs([logits[None]], [deltas[None]]), [(60, 60)])[0]
    assert 0 < len(result) < len(clean)
    assert result.pred_boxes.tensor.isfinite().all() and result.scores.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"score_thresh": 1.5}, "SCORE_THRESH_TEST"),
        ({"nms_thresh": -0.1}, "NMS_THRESH_TEST"),
        ({"topk_candidates": 0}, "TOPK_CANDIDATES_TEST"),
        ({"max_detections": 0}, "DETECTIONS_PER_IMAGE"),
        ({"nms_kind": "agnostic"}, "NMS_KIND is 'agnostic'; .*class_agnostic"),
        ({"soft_nms_method": "cubic"}, "SOFT_NMS_METHOD"),
        ({"soft_nms_sigma": 0.0}, "SOFT_NMS_SIGMA"),
    ],
)
def test_nonsense_is_refused_by_name(changes: dict, key: str):
    with pytest.raises(ValueError, match=key):
        decoder(**changes)


@pytest.mark.parametrize("per_class", [False, True])
def test_deltas_of_levels_with_different_numbers_of_anchors_are_gathered(per_class: bool):
    generator = torch.Generator().manual_seed(0)
    regressors = K if per_class else 1
    levels = [
        torch.randn(2, count * regressors * 4, h, w, generator=generator)
        for count, h, w in ((3, 2, 3), (1, 2, 2), (2, 1, 2))
    ]
    rows = [x.permute(0, 2, 3, 1).reshape(2, -1, regressors, 4) for x in levels]
    dense = torch.cat(rows, dim=1)  # (N, R, K or 1, 4)
    images = torch.randint(0, 2, (40,), generator=generator)
    anchors = torch.randint(0, dense.shape[1], (40,), generator=generator)
    classes = torch.randint(0, regressors, (40,), generator=generator)
    got = gather_deltas(levels, images, anchors, *((classes, K) if per_class else ()))
    assert torch.equal(got, dense[images, anchors, classes])
    if not per_class:
        assert torch.equal(gather_at_once(levels, images, anchors), got)


LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "part of a larger one": lambda x: torch.cat([x, x], dim=1)[:, : x.shape[1]],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("per_class", [False, True])
def test_deltas_of_any_layout_are_gathered_in_each_way(layout, per_class: bool):
    generator = torch.Generator().manual_seed(0)
    regressors = K if per_class else 1
    sizes = ((4, 3), (3, 1), (1, 2), (1, 1))
    plain = [torch.randn(2, 3 * regressors * 4, h, w, generator=generator) for h, w in sizes]
    rows = [x.permute(0, 2, 3, 1).reshape(2, -1, regressors, 4) for x in plain]
    dense = torch.cat(rows, dim=1)
    images, anchors = (torch.randint(0, n, (60,), generator=generator) for n in dense.shape[:2])
    classes = torch.randint(0, regressors, (60,), generator=generator)
    levels = [layout(x) for x in plain]
    got = gather_deltas(levels, images, anchors, *((classes, K) if per_class else ()))
    assert torch.equal(got, dense[images, anchors, classes])
    wanted = torch.arange(4) + 4 * classes[:, None]
    assert torch.equal(gather_from_each(levels, images, anchors, 4 * regressors, wanted), got)


def test_parts_of_the_outputs_are_no_detections():
    logits, _, anchors = random_level()
    parts = HeadOutputs([logits[None]], positive_deltas=torch.zeros(0, 4))
    with pytest.raises(ValueError, match="logits and deltas as a whole"):
        decoder()([anchors], parts, [(60, 60)])
