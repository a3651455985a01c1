"""The decoder of fixed shapes gives what the one that follows the numbers gives."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformLinear
from detectron2.structures import Boxes, Instances

from retinanet_ext.export.compare import compare_sets
from retinanet_ext.export.graph.decode import StaticDecoder
from retinanet_ext.export.graph.nms import (
    nms_by_onnx_node,
    nms_by_onnx_symbol,
    nms_by_torchvision,
)
from retinanet_ext.modeling import DenseDecoder, RetinaNetAnchorGenerator
from retinanet_ext.structures import HeadOutputs

K = 3
SIZES = [(12, 16), (6, 8), (1, 2)]
STRIDES = [8, 16, 32]
IMAGES = [(96, 128)] * 2


class Scene:
    """Random outputs of a head, and both decoders."""

    def __init__(
        self,
        scales=(1, 1, 1),
        per_class_boxes: bool = False,
        quality: bool = False,
        ltrb: bool = False,
        **settings,
    ):
        self.generator = RetinaNetAnchorGenerator(
            octave_base_sizes=[16.0, 32.0, 64.0],
            scales_per_octave=list(scales),
            aspect_ratios=[[0.5, 1.0]],
            strides=STRIDES,
        )
        torch.manual_seed(1)
        per_box = 4 * K if per_class_boxes else 4
        levels = list(zip(self.generator.num_anchors, SIZES, strict=True))
        self.logits = [torch.randn(2, a * K, h, w) * 2 - 2 for a, (h, w) in levels]
        self.deltas = [torch.randn(2, a * per_box, h, w) * 0.4 for a, (h, w) in levels]
        self.quality = [torch.randn(2, a, h, w) for a, (h, w) in levels] if quality else None
        self.dense = DenseDecoder(
            box2box_transform=Box2BoxTransformLinear()
            if ltrb
            else Box2BoxTransform((1.0, 2.0, 1.0, 0.5)),
            num_classes=K,
            cls_agnostic_bbox_reg=not per_class_boxes,
            **{"topk_candidates": 50, **settings},
        )
        cells = list(self.generator.cell_anchors)
        self.static = StaticDecoder(self.dense, cells, STRIDES, self.generator.offset)

    def expected(self) -> list[Instances]:
        named = {} if self.quality is None else {"quality": self.quality}
        outputs = HeadOutputs(self.logits, self.deltas, named=named)
        return self.dense.candidates(self.generator(self.logits), outputs, IMAGES)

    def candidates(self) -> tuple[torch.Tensor, ...]:
        return self.static.candidates(self.logits, self.deltas, self.quality)

    def detections(self, nms=nms_by_torchvision) -> tuple[torch.Tensor, ...]:
        return self.static.detections(*self.candidates(), nms)


def instances(boxes, scores, classes) -> list[Instances]:
    found = []
    for box, score, class_ in zip(boxes, scores, classes, strict=True):
        kept = score > 0
        fields = {"pred_boxes": Boxes(box[kept]), "scores": score[kept]}
        found.append(Instances((96, 128), **fields, pred_classes=class_[kept]))
    return found


def assert_same(expected: list[Instances], got: list[Instances]) -> None:
    assert [len(x) for x in expected] == [len(x) for x in got]
    found = compare_sets(expected, got)
    assert found.count > 20 and found.missing == 0


FORMS = pytest.mark.parametrize(
    "form",
    [
        {},
        {"topk_candidates": 5},
        {"scales": (2, 1, 3)},
        {"per_class_boxes": True},
        {"quality": True},
        {"score_thresh": 0.4},
        {"ltrb": True},
        {"ltrb": True, "per_class_boxes": True},
        {"ltrb": True, "quality": True, "candidates_by": "score", "score_thresh": 0.2},
        {"quality": True, "candidates_by": "score", "topk_candidates": 20},
    ],
    ids=str,
)


@FORMS
def test_candidates_are_those_of_the_dense_decoder(form):
    scene = Scene(**form)
    boxes, scores, classes = scene.candidates()
    assert boxes.shape == (2, 3 * scene.static.topk, 4)
    assert_same(scene.expected(), instances(boxes, scores, classes))


@pytest.mark.parametrize(
    "nms", [nms_by_torchvision, nms_by_onnx_node, nms_by_onnx_symbol], ids=lambda x: x.__name__
)
@pytest.mark.parametrize("kind", ["per_class", "class_agnostic"])
@FORMS
def test_detections_are_those_of_the_dense_decoder(form, kind, nms):
    scene = Scene(**form, nms_kind=kind)
    expected = [scene.dense.suppress(x) for x in scene.expected()]
    boxes, scores, classes, count = scene.detections(nms)
    assert count.tolist() == [len(x) for x in expected]
    assert_same(expected, instances(boxes, scores, classes))
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    for i, of_image in enumerate(count.tolist()):
        assert (classes[i, of_image:] == -1).all() and (scores[i, of_image:] == 0).all()


def test_no_more_than_the_limit_come_out():
    scene = Scene(max_detections=7)
    boxes, scores, _, count = scene.detections()
    assert boxes.shape == (2, 7, 4) and count.tolist() == [7, 7]
    assert (scores > 0).all()


def test_fewer_candidates_than_the_limit_are_padded():
    scene = Scene(topk_candidates=2, max_detections=100)
    boxes, scores, classes, count = scene.detections()
    assert boxes.shape == (2, 100, 4) and scores.shape == classes.shape == (2, 100)
    assert 0 < count.max() <= 6


def test_nothing_above_the_threshold_is_nothing():
    scene = Scene(score_thresh=0.999999)
    boxes, scores, classes, count = scene.detections()
    assert count.tolist() == [0, 0]
    assert (boxes == 0).all() and (scores == 0).all() and (classes == -1).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_boxes_that_are_not_finite_are_left_out(value):
    scene = Scene()
    scene.deltas[0][0] = value
    expected = [scene.dense.suppress(x) for x in scene.expected()]
    boxes, scores, classes, _ = scene.detections()
    assert boxes.isfinite().all()
    assert_same(expected, instances(boxes, scores, classes))


def test_images_do_not_suppress_each_other():
    scene = Scene()
    for maps in (scene.logits, scene.deltas):
        for level in maps:
            level[1] = level[0]
    boxes, _, _, count = scene.detections()
    assert count[0] == count[1] > 5
    assert torch.equal(boxes[0], boxes[1])
