"""Assigners, losses and decoding give on a GPU what they give on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from retinanet_ext.modeling import (
    ATSSAssigner,
    DenseDecoder,
    IoUAssigner,
    RetinaNetAnchorGenerator,
)
from retinanet_ext.registry import CLS_LOSS_REGISTRY
from retinanet_ext.structures import DenseTargets, HeadOutputs
from tests.helpers.parity import (
    Batch,
    assert_same_boxes,
    assert_same_training,
    detections,
    make_batch,
    small_cfg,
    spread_predictions,
)

pytestmark = pytest.mark.cuda

K = 7
SIZES = [(24, 32), (12, 16), (6, 8)]
CLS_LOSSES = sorted(
    name for name, entry in CLS_LOSS_REGISTRY if entry.__module__.startswith("retinanet_ext.")
)
SETTINGS: dict[str, dict[str, Any]] = {
    "ClassBalancedFocal": {"CLASS_COUNTS": [1, 5, 9, 100, 1000, 3, 7]},
}
"""Keys of MODEL.RETINANET that a classification loss does not do without."""


def test_all_losses_of_the_package_are_here():
    assert {"FocalLoss", "OHEM", "QualityFocalLoss", "VarifocalLoss"} < set(CLS_LOSSES)


def pyramid(device: torch.device | str) -> list[Boxes]:
    """Anchors of three levels, three per location, of an image of 256 x 192 pixels."""
    generator = RetinaNetAnchorGenerator(
        octave_base_sizes=[32.0, 64.0, 128.0],
        scales_per_octave=1,
        aspect_ratios=[[0.5, 1.0, 2.0]],
        strides=[8, 16, 32],
    ).to(device)
    return generator([torch.zeros(1, 1, *size, device=device) for size in SIZES])


def ground_truth(count: int, whole: bool) -> Instances:
    """Random boxes in 256 x 192 pixels; whole multiples of 8 make ties, and boxes that coincide."""
    corner = torch.rand(count, 2) * torch.tensor([200.0, 150])
    boxes = torch.cat([corner, corner + torch.rand(count, 2) * 90 + 6], dim=1)
    boxes = (boxes / 8).round() * 8 + torch.tensor([0.0, 0, 8, 8]) if whole else boxes
    return Instances((192, 256), gt_boxes=Boxes(boxes), gt_classes=torch.randint(0, K, (count,)))


def assert_same_targets(got: DenseTargets, expected: DenseTargets) -> None:
    for name in ("labels", "boxes", "matched_idxs", "extra"):
        ours, wanted = getattr(got, name), getattr(expected, name)
        assert (ours is None) == (wanted is None), name
        assert wanted is None or torch.equal(ours.cpu(), wanted), name


@pytest.mark.parametrize("whole", [True, False], ids=["ties", "no ties"])
@pytest.mark.parametrize("multi_label", [1.0, 0.6])
@pytest.mark.parametrize("kind", [IoUAssigner, ATSSAssigner])
def test_assigners(gpu: torch.device, kind: type, multi_label: float, whole: bool):
    images = [ground_truth(count, whole) for count in (20, 0, 1000)]
    assigner = kind(num_classes=K, multi_label_iou_thresh=multi_label)
    expected = assigner(pyramid("cpu"), images)
    assert expected.pos_mask.any()
    assert (expected.extra is not None and len(expected.extra) > 0) == (multi_label < 1)
    got = assigner(pyramid(gpu), [image.to(gpu) for image in images])
    assert got.labels.device.type == gpu.type
    assert_same_targets(got, expected)


def test_ignored_regions(gpu: torch.device):
    batch = make_batch(K)
    batch[0]["ignore_boxes"] = Boxes(torch.tensor([[0.0, 0, 60, 60], [70, 20, 128, 96]]))
    models = [build_model(config(device)) for device in (torch.device("cpu"), gpu)]
    targets = []
    for model in models:
        features = [torch.zeros(1, 1, 16 // 2**i, 20 // 2**i) for i in range(5)]
        anchors = model.anchor_generator([x.to(model.device) for x in features])
        targets.append(model.label_anchors(anchors, batch))
    assert (targets[0].labels == -1).any()
    assert_same_targets(targets[1], targets[0])


def outputs_of(anchors: int, classes_of_boxes: int, with_quality: bool) -> HeadOutputs:
    logits = [torch.randn(2, anchors * K, *size) * 2 - 3 for size in SIZES]
    deltas = [torch.randn(2, anchors * 4 * classes_of_boxes, *size) * 0.3 for size in SIZES]
    quality = [torch.randn(2, anchors, *size) for size in SIZES]
    return HeadOutputs(logits, deltas, {"quality": quality} if with_quality else {})


def moved(outputs: HeadOutputs, device: torch.device) -> HeadOutputs:
    def move(levels: list[Tensor] | None) -> list[Tensor]:
        return [x.to(device) for x in levels or []]

    named = {name: move(levels) for name, levels in outputs.named.items()}
    return HeadOutputs(move(outputs.logits), move(outputs.deltas), named)


@pytest.mark.parametrize("with_quality", [False, True], ids=["", "quality"])
@pytest.mark.parametrize("class_specific", [False, True], ids=["", "class-specific"])
@pytest.mark.parametrize("kind", ["per_class", "class_agnostic", "soft", "soft linear"])
def test_decoding(gpu: torch.device, kind: str, class_specific: bool, with_quality: bool):
    nms_kind, _, method = kind.partition(" ")
    decoder = DenseDecoder(
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        num_classes=K,
        topk_candidates=300,
        nms_kind=nms_kind,
        soft_nms_method=method or "gaussian",
        cls_agnostic_bbox_reg=not class_specific,
    )
    outputs, sizes = (
        outputs_of(3, K if class_specific else 1, with_quality),
        [(192, 256), (180, 90)],
    )
    expected = decoder(pyramid("cpu"), outputs, sizes)
    found = decoder(pyramid(gpu), moved(outputs, gpu), sizes)
    for got, wanted in zip(found, expected, strict=True):
        assert got.scores.device.type == gpu.type
        assert_same_boxes(got, wanted)


def config(device: torch.device, **retinanet: Any) -> CfgNode:
    cfg = small_cfg(device=device, **retinanet)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    return cfg


def pair(gpu: torch.device, **retinanet: Any) -> tuple[nn.Module, nn.Module]:
    """The same model on the CPU and on ``gpu``."""
    torch.manual_seed(0)
    on_cpu = build_model(config(torch.device("cpu"), **retinanet))
    spread_predictions(on_cpu)
    on_gpu = build_model(config(gpu, **retinanet))
    on_gpu.load_state_dict(on_cpu.state_dict())
    return on_cpu, on_gpu


class OnCpu(nn.Module):
    """Losses and gradients of a model on a GPU, for helpers that compare tensors of one device."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {name: loss.cpu() for name, loss in self.model(batch).items()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.model.zero_grad(set_to_none)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        for name, parameter in self.model.named_parameters(*args, **kwargs):
            on_cpu = parameter.detach().cpu()
            on_cpu.grad = None if parameter.grad is None else parameter.grad.cpu()
            yield name, on_cpu


def assert_gpu_equals_cpu(gpu: torch.device, **retinanet: Any) -> None:
    on_cpu, on_gpu = pair(gpu, **retinanet)
    batch = make_batch(K)
    for got, expected in zip(detections(on_gpu, batch), detections(on_cpu, batch), strict=True):
        # Norms multiply the rounding of small differences.
        assert_same_boxes(got, expected, 1e-2 if "NORM" in retinanet else 1e-3)
    # In float64: the networks round differently, and a deep one's gradients show it.
    assert_same_training(on_cpu.double(), OnCpu(on_gpu.double()), batch)


@pytest.mark.parametrize("name", CLS_LOSSES)
def test_models_with_each_classification_loss(gpu: torch.device, name: str):
    assert_gpu_equals_cpu(gpu, CLS_LOSS=name, **SETTINGS.get(name, {}))


@pytest.mark.parametrize(
    "settings",
    [
        {"CLS_AGNOSTIC_BBOX_REG": False},
        {"QUALITY_BRANCH": "iou"},
        {"QUALITY_BRANCH": "centerness"},
        {"ASSIGNER": "ATSSAssigner"},
        {"MULTI_LABEL_IOU_THRESH": 0.6},
        {"CLS_LOSS": "OHEM", "OHEM_MODE": "ratio", "OHEM_BATCH": 0, "OHEM_NMS_THRESH": 1.0},
        {"HEAD": "SharedTowerHead"},
        {"NORM": "GN", "NORM_PER_LEVEL": "per_level"},
        {"LOSS_NORMALIZER": "positives"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_models_with_other_parts(gpu: torch.device, settings: dict[str, Any]):
    assert_gpu_equals_cpu(gpu, **settings)


@pytest.mark.parametrize("name", CLS_LOSSES)
def test_classification_losses_of_the_same_logits(gpu: torch.device, name: str):
    # In float32: the losses themselves, without a network that rounds differently before them.
    node = config(gpu, CLS_LOSS=name, **SETTINGS.get(name, {}))
    criterion = CLS_LOSS_REGISTRY.build(node)
    outputs, anchors = outputs_of(3, 1, False), pyramid("cpu")
    targets = IoUAssigner(num_classes=K)(anchors, [ground_truth(20, False) for _ in range(2)])
    quality, results = torch.rand(targets.labels.shape), []
    for device in (torch.device("cpu"), gpu):
        leaves = [x.detach().to(device).requires_grad_() for x in outputs.logits or []]
        of_device = DenseTargets(
            **{k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(targets).items()}
        )
        wanted: dict[str, Any] = {}
        if getattr(criterion, "needs_anchors", False):
            wanted["anchors"] = [x.to(device) for x in anchors]
        if getattr(criterion, "needs_quality", False):
            wanted["quality"] = quality.to(device)
        loss = criterion.to(device)(leaves, of_device, **wanted)
        loss.backward()
        results.append([loss.detach(), *(x.grad for x in leaves)])
    (loss, *gradients), (wanted, *expected) = results[1], results[0]
    torch.testing.assert_close(loss.cpu(), wanted, rtol=1e-5, atol=0)
    for got, gradient in zip(gradients, expected, strict=True):
        assert (got.cpu() - gradient).abs().max() <= 1e-4 * gradient.abs().max()
