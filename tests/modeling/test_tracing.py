"""A trace by Detectron2's adapter follows pictures of any size, as that of its RetinaNet does."""

from __future__ import annotations

import warnings

import pytest
import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import build_model
from torch import nn

from retinanet_ext.errors import InputError
from tests.helpers.parity import small_cfg, spread_predictions

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


def build(**retinanet):
    cfg = small_cfg(**retinanet)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    torch.manual_seed(0)
    model = build_model(cfg)
    spread_predictions(model)
    return model.eval()


def infer(model, *images):
    return [x["instances"] for x in model([{"image": image} for image in images])]


def traced(model, images):
    """The traced model, and its outputs as :func:`infer` gives them."""
    adapter = TracingAdapter(model, images, infer).eval()
    smaller = tuple(nn.functional.interpolate(x[None], scale_factor=0.6)[0] for x in images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = torch.jit.trace(adapter, smaller, check_trace=False)
    return adapter.outputs_schema(trace(*images))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"CLS_AGNOSTIC_BBOX_REG": False},
        {"QUALITY_BRANCH": "iou"},
        {"NMS_KIND": "class_agnostic"},
        {"NORM": "GN"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())) or "default",
)
@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_a_trace_of_small_pictures_is_right_for_larger_ones(settings, batch):
    model = build(**settings)
    images = tuple(torch.rand(3, 160 + 32 * i, 224) * 255 for i in range(batch))
    expected = infer(model, *images)
    for got, wanted in zip(traced(model, images), expected, strict=True):
        assert len(wanted) > 5
        # The speedups, which round otherwise, step aside in a trace.
        boxes = got.pred_boxes.tensor, wanted.pred_boxes.tensor
        torch.testing.assert_close(*boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(got.scores, wanted.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(got.pred_classes, wanted.pred_classes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"NMS_KIND": "soft"}, "NMS_KIND soft"), ({"SCORE_THRESH_TEST": 0.0}, "threshold below")],
)
@torch.no_grad()
def test_what_a_trace_would_get_wrong_is_refused(settings, message):
    model = build(**settings)
    with pytest.raises(InputError, match=f"{message}.*cannot be traced"):
        traced(model, (torch.rand(3, 96, 96) * 255,))


def test_scripted_anchors_are_those_of_any_size():
    generator = build().anchor_generator
    scripted = torch.jit.script(generator)
    for side in (64, 96):
        features = [torch.zeros(1, 1, side // 2**i, side // 2**i) for i in range(5)]
        for got, expected in zip(scripted(features), generator(features), strict=True):
            assert torch.equal(got.tensor, expected.tensor)
