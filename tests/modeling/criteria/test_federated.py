"""The focal loss over some of many classes: the whole loss where all take part, else a part."""

from __future__ import annotations

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from retinanet_ext import UserError, get_cfg, validate_cfg
from retinanet_ext.data.datasets.class_counts import count_classes
from retinanet_ext.losses import focal_loss
from retinanet_ext.losses.conv_focal import conv_focal_loss
from retinanet_ext.modeling import FederatedFocal, FocalLoss
from retinanet_ext.registry import CLS_LOSS_REGISTRY
from retinanet_ext.structures import DenseTargets

K, A, N, C = 40, 3, 2, 8
SIZES = [(4, 5), (2, 3)]
COUNTS = [1000 // (k + 1) for k in range(K)]


def scene(classes: tuple[int, ...] = (1, 7, 7, 30)) -> tuple[list, nn.Conv2d, DenseTargets]:
    torch.manual_seed(0)
    features = [torch.randn(N, C, *size, requires_grad=True) for size in SIZES]
    conv = nn.Conv2d(C, A * K, 3, padding=1)
    anchors = A * sum(h * w for h, w in SIZES)
    labels = torch.full((N, anchors), K)
    labels[:, :3] = -1
    for i, k in enumerate(classes):
        labels[i % N, 5 + 3 * i] = k
    return features, conv, DenseTargets(labels, torch.zeros(N, anchors, 4), K)


def loss_and_gradients(loss: nn.Module, fused: bool, classes: tuple[int, ...] = (1, 7, 7, 30)):
    features, conv, targets = scene(classes)
    if fused:
        value = loss.from_features(features, conv, targets)
    else:
        value = loss([conv(x) for x in features], targets)
    return value, torch.autograd.grad(value, [*conv.parameters(), *features])


@pytest.mark.parametrize("fused", [False, True])
def test_with_all_classes_it_is_the_focal_loss(fused: bool):
    federated = FederatedFocal(counts=COUNTS, num_sampled=K)
    value, gradients = loss_and_gradients(federated, fused)
    expected, wanted = loss_and_gradients(FocalLoss(), fused)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    for got, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fused", [False, True])
def test_with_some_classes_it_is_the_loss_of_their_columns(fused: bool):
    federated = FederatedFocal(counts=COUNTS, num_sampled=12)
    features, conv, targets = scene()
    chosen = federated.sample(targets)
    assert len(chosen) == 12 and {1, 7, 30} <= set(chosen.tolist())
    value, gradients = loss_and_gradients(federated, fused)
    columns = torch.zeros(K, dtype=torch.bool)
    columns[chosen] = True
    logits = [conv(x).unflatten(1, (A, K)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in features]
    logits = torch.cat(logits, dim=1)  # (N, R, K)
    truth = torch.nn.functional.one_hot(targets.labels.clamp(min=0), K + 1)[..., :K].bool()
    whole = focal_loss(logits, truth, 0.25, 2.0)[targets.labels >= 0][:, columns].sum()
    torch.testing.assert_close(value, whole, rtol=1e-5, atol=0)
    wanted = torch.autograd.grad(whole, [*conv.parameters(), *features])
    for got, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    rows = gradients[0].unflatten(0, (A, K))
    assert (rows[:, ~columns] == 0).all() and (rows[:, columns] != 0).any(2).all()


def test_more_classes_in_the_batch_than_are_sampled_all_take_part():
    _, _, targets = scene((1, 2, 3, 4, 5))
    chosen = FederatedFocal(counts=COUNTS, num_sampled=3).sample(targets)
    assert chosen.tolist() == [1, 2, 3, 4, 5]


def test_the_draw_follows_from_the_iteration():
    federated, (_, _, targets) = FederatedFocal(counts=COUNTS, num_sampled=12), scene()
    draws = []
    for iteration in (3, 3, 4):
        with EventStorage(iteration):
            torch.manual_seed(iteration + len(draws))  # other random numbers change nothing
            draws.append(federated.sample(targets).tolist())
    assert draws[0] == draws[1] != draws[2]


def test_each_process_draws_its_own(monkeypatch: pytest.MonkeyPatch):
    federated, (_, _, targets) = FederatedFocal(counts=COUNTS, num_sampled=12), scene()
    draws = []
    for rank in (0, 1, 0):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        with EventStorage(3):
            draws.append(federated.sample(targets).tolist())
    assert draws[0] == draws[2] != draws[1]


@pytest.mark.parametrize("num_classes", [1203, 365])
def test_the_last_convolution_costs_the_same_for_any_number_of_classes(
    num_classes: int, monkeypatch: pytest.MonkeyPatch
):
    """At 800 x 1056 pixels and nine anchors, 18.3 instead of 439.3 GMAC for LVIS."""
    locations = sum(-(-800 // s) * -(-1056 // s) for s in (8, 16, 32, 64, 128))
    assert locations == 17_609 and 9 * locations == 158_481
    rows = []
    module = "retinanet_ext.modeling.criteria.classification.conv_focal_loss"

    def noted(features, weight, *args, **kwargs):
        rows.append(len(weight))
        return conv_focal_loss(features, weight, *args, **kwargs)

    monkeypatch.setattr(module, noted)
    conv = nn.Conv2d(C, 9 * num_classes, 3, padding=1)
    labels = torch.full((1, 9 * 6), num_classes)
    labels[0, :2] = torch.tensor([0, num_classes - 1])
    targets = DenseTargets(labels, torch.zeros(1, 9 * 6, 4), num_classes)
    counts = [1] * num_classes
    for loss in (FederatedFocal(counts=counts), FocalLoss()):
        loss.from_features([torch.randn(1, C, 2, 3)], conv, targets)
    few, whole = (round(locations * 256 * 9 * x / 1e9, 1) for x in rows)
    assert rows == [9 * 50, 9 * num_classes] and few == 18.3
    assert num_classes != 1203 or whole == 439.3


def test_frequent_classes_are_drawn_more_often_and_by_chance_all():
    _, _, targets = scene(())
    federated = FederatedFocal(counts=COUNTS, num_sampled=5)
    drawn = torch.zeros(K)
    for iteration in range(1500):
        with EventStorage(iteration):
            drawn[federated.sample(targets)] += 1
    assert (drawn > 0).all() and drawn.sum() == 5 * 1500
    # Class 0 has 1000 images and class 24 has 40: the root is 5 times as likely at each draw.
    assert 3 < drawn[0] / drawn[20:29].mean() < 6


def test_extra_classes_of_an_anchor_take_part():
    _, _, targets = scene()
    extra = torch.tensor([[0, 5, 39]])
    targets = DenseTargets(targets.labels, targets.boxes, K, extra=extra)
    logits = [torch.randn(N, A * K, *size) for size in SIZES]
    few = FederatedFocal(counts=COUNTS, num_sampled=K)(logits, targets)
    torch.testing.assert_close(few, FocalLoss()(logits, targets), rtol=1e-6, atol=0)
    assert 39 in FederatedFocal(counts=COUNTS, num_sampled=1).sample(targets)


def test_it_wants_the_images_of_each_class(monkeypatch: pytest.MonkeyPatch):
    assert FederatedFocal.needs_class_counts and FederatedFocal.counts_images
    dicts = [{"annotations": [{"category_id": 0, "bbox": [0, 0, 1, 1]}] * 3}]
    dicts += [{"annotations": [{"category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1}]}]
    module = "retinanet_ext.data.datasets.class_counts"
    monkeypatch.setattr(f"{module}.DatasetCatalog.get", lambda name: dicts)
    monkeypatch.setattr(f"{module}.load_class_names", lambda name: ["a", "b"])
    assert count_classes(["x"], 2) == [3, 0]
    assert count_classes(["x"], 2, images=True) == [1, 0]


@pytest.mark.parametrize(
    ("key", "value"),
    [("FEDERATED_CLASSES", 0), ("FEDERATED_POWER", -1.0), ("CLASS_COUNTS", [1, 2, 3])],
)
def test_impossible_settings_name_the_key(key: str, value: object):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.RETINANET.CLS_LOSS = "FederatedFocal"
    cfg.MODEL.RETINANET[key] = value
    with pytest.raises(UserError, match=key):
        validate_cfg(cfg)


def test_without_counts_there_is_no_loss():
    cfg = get_cfg()
    cfg.MODEL.RETINANET.CLS_LOSS = "FederatedFocal"
    loss = CLS_LOSS_REGISTRY.build(cfg)
    with pytest.raises(UserError, match=r"CLASS_COUNTS is empty.*FederatedFocal"):
        loss.sample(scene()[2])
