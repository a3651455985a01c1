"""A training step on a GPU: where it waits for the device, and what half precision changes."""

from __future__ import annotations

import collections
import copy
import warnings
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from tests.helpers.parity import (
    Batch,
    detections,
    losses_and_gradients,
    make_batch,
    small_cfg,
    spread_predictions,
)

pytestmark = pytest.mark.cuda

K = 7


def build(device: torch.device, **retinanet: object) -> nn.Module:
    cfg = small_cfg(device=device, **retinanet)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    # Detectron2's uploads two tensors for each level at every step.
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    torch.manual_seed(0)
    model = build_model(cfg)
    spread_predictions(model)
    return model


def places_that_wait(model: nn.Module, batch: Batch) -> collections.Counter[str]:
    """How often each place of the program waits for the GPU in one forward and backward pass."""
    losses_and_gradients(model, batch)  # compiles kernels, makes anchors
    with EventStorage(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            sum(model(batch).values()).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [x for x in caught if "called a synchronizing" in str(x.message)]
    return collections.Counter(f"{Path(x.filename).name}:{x.lineno}" for x in waits)


@pytest.mark.cuda(needs="CUDA, which tells of waiting")
@pytest.mark.parametrize(
    "settings",
    [{}, {"QUALITY_BRANCH": "iou"}, {"CLS_AGNOSTIC_BBOX_REG": False}],
    ids=lambda settings: " ".join(map(str, settings.values())) or "default",
)
def test_a_step_waits_where_it_says(gpu: torch.device, settings: dict[str, object]):
    model, batch = build(gpu, **settings), make_batch(K)
    # Uploads from memory that is not pinned count as waiting. Ground truth is checked on the CPU
    # and uploaded by the model: boxes and classes of the two images that have some.
    for inputs in batch:
        inputs["image"] = inputs["image"].to(gpu)
    uploads = 2 * sum(len(inputs["instances"]) > 0 for inputs in batch)
    places = places_that_wait(model, batch)
    by_file = collections.Counter[str]()
    for place, count in places.items():
        by_file[place.rpartition(":")[0]] += count
    # Positives.of asks how many there are, Detectron2's get_deltas whether anchors have an area.
    assert by_file["loss_terms.py"] == 1, places
    assert by_file["box_regression.py"] <= 1, places
    assert places.total() <= 2 + uploads, places


HALVES = [
    torch.bfloat16,
    pytest.param(torch.float16, marks=pytest.mark.cuda(needs="CUDA, which float16 is for")),
]


@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast_is_near_float32(gpu: torch.device, dtype: torch.dtype, fused: bool):
    model = build(
        gpu,
        FUSED_CLS_LOSS_MIN_CLASSES=0 if fused else -1,
        LOSS_NORMALIZER="positives",
        SMOOTH_L1_LOSS_BETA=1.0,
    )
    batch = make_batch(K)
    expected, _ = losses_and_gradients(model, batch)
    seen = []
    model.head.bbox_pred.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    with torch.autocast(gpu.type, dtype=dtype):
        losses, gradients = losses_and_gradients(model, batch)
    assert set(seen) == {dtype}
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name].item(), rel=2e-2)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32 and gradient.isfinite().all(), name
    with torch.autocast(gpu.type, dtype=dtype):
        (found, *_) = detections(model, batch)
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32
    assert len(found) > 5 and found.scores.isfinite().all()


def test_autocast_of_the_model_itself(gpu: torch.device):
    model = build(gpu, LOSS_NORMALIZER="positives", SMOOTH_L1_LOSS_BETA=1.0)
    expected, _ = losses_and_gradients(model, make_batch(K))
    cfg = small_cfg(device=gpu, LOSS_NORMALIZER="positives", SMOOTH_L1_LOSS_BETA=1.0)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.SPEEDUPS.AUTOCAST = "RetinaNetExt", "bfloat16"
    half = build_model(cfg)
    half.load_state_dict(model.state_dict())
    losses, gradients = losses_and_gradients(half, make_batch(K))
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name].item(), rel=2e-2)
        assert loss.item() != expected[name].item()
    assert all(x.isfinite().all() for x in gradients.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_many_classes_in_pieces_equal_the_whole(gpu: torch.device, dtype: torch.dtype):
    whole = build(gpu, FUSED_CLS_LOSS_MIN_CLASSES=-1)
    fused = build(gpu, FUSED_CLS_LOSS_MIN_CLASSES=0)
    assert fused.fuse_cls_loss and not whole.fuse_cls_loss
    fused.load_state_dict(copy.deepcopy(whole.state_dict()))
    expected, expected_gradients = losses_and_gradients(whole.to(dtype), make_batch(K))
    losses, gradients = losses_and_gradients(fused.to(dtype), make_batch(K))
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=0)
    assert gradients.keys() == expected_gradients.keys()
    for name, value in expected_gradients.items():
        # Rounding of the loss's slope goes through the whole network.
        tolerance = 1e-4 if dtype == torch.float64 else 1e-3
        assert (gradients[name] - value).abs().max() <= tolerance * value.abs().max(), name
