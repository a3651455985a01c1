"""What every registered classification loss promises, and how the config sets each of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.nn import functional as F

from retinanet_ext import get_cfg
from retinanet_ext.losses import class_alphas, focal_loss_star, sigmoid_focal_loss
from retinanet_ext.modeling import BCE, OHEM, BalancedBCE, ClassBalancedFocal, FocalLoss
from retinanet_ext.registry import CLS_LOSS_REGISTRY
from retinanet_ext.structures import DenseTargets

K = 3
NUM_ANCHORS = 2
SHAPES = ((3, 4), (2, 2), (1, 1))
# Keys of MODEL.RETINANET without which a loss cannot be built.
NEEDED: dict[str, dict[str, Any]] = {
    "ClassBalancedFocal": {"CLASS_COUNTS": [100, 10, 1000]},
    "FederatedFocal": {"CLASS_COUNTS": [100, 10, 1000]},
}
OHEM_FORMS: list[dict[str, Any]] = [
    {"OHEM_BATCH": 16, "OHEM_NMS_THRESH": 1.0},
    {"OHEM_BATCH": 16, "OHEM_NMS_THRESH": 0.5},
    {"OHEM_MODE": "ratio", "OHEM_NMS_THRESH": 1.0, "OHEM_BATCH": 0, "OHEM_NEG_POS_RATIO": 2.0},
    {"OHEM_MODE": "ratio", "OHEM_NMS_THRESH": 0.5, "OHEM_BATCH": 8},
]
NAMES = sorted(
    name for name, entry in CLS_LOSS_REGISTRY if entry.__module__.startswith("retinanet_ext.")
)
FOCAL_FAMILY = ("BCE", "BalancedBCE", "FocalLoss")


def build(name: str, **keys: Any) -> nn.Module:
    cfg = get_cfg()
    node = cfg.MODEL.RETINANET
    node.NUM_CLASSES = K
    node.CLS_LOSS = name
    for key, value in {**NEEDED.get(name, {}), **keys}.items():
        assert key in node, key
        node[key] = value
    return CLS_LOSS_REGISTRY.get(node.CLS_LOSS)(cfg)


def head_outputs(num_images: int = 2, outputs: int = K) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(num_images, NUM_ANCHORS * outputs, h, w, generator=generator).requires_grad_()
        for h, w in SHAPES
    ]


def outputs_for(name: str) -> list[Tensor]:
    """Of a head whose classifier is the loss's: a softmax has the background, too."""
    return head_outputs(outputs=K + ("sigmoid" not in classifiers_of(name)))


def classifiers_of(name: str) -> tuple[str, ...]:
    return getattr(CLS_LOSS_REGISTRY.get(name), "classifiers", ("sigmoid",))


def targets_of(num_images: int = 2) -> DenseTargets:
    """Each level has an object, ignored anchors in the middle, and the rest is background."""
    labels = []
    for h, w in SHAPES:
        level = torch.full((num_images, h * w * NUM_ANCHORS), K)
        level[:, 0] = torch.arange(num_images) % K
        level[:, level.shape[1] // 2 :: 3] = -1
        labels.append(level)
    joined = torch.cat(labels, dim=1)
    return DenseTargets(joined, torch.zeros(*joined.shape, 4), K)


def per_anchor(levels: list[Tensor]) -> Tensor:
    """Head's layout to (N, R, K), with a background to (N, R, K + 1)."""
    flat = []
    for level in levels:
        n, channels, h, w = level.shape
        outputs = channels // NUM_ANCHORS
        entries = level.reshape(n, NUM_ANCHORS, outputs, h, w).permute(0, 3, 4, 1, 2)
        flat.append(entries.reshape(n, -1, outputs))
    return torch.cat(flat, dim=1)


def anchors_of() -> list[Boxes]:
    """Squares on the grid of each level, the second 1.5 times the first."""
    levels = []
    for i, (h, w) in enumerate(SHAPES):
        stride = 8.0 * 4**i
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        center = torch.stack([x, y], dim=-1).reshape(-1, 1, 2) * stride
        half = torch.tensor([1.0, 1.5]).view(1, NUM_ANCHORS, 1) * stride / 2
        levels.append(Boxes(torch.cat([center - half, center + half], dim=-1).reshape(-1, 4)))
    return levels


def apply(criterion: nn.Module, logits: list[Tensor], targets: DenseTargets) -> Tensor:
    """Call a loss as the detector does."""
    if getattr(criterion, "needs_anchors", False):
        return criterion(logits, targets, anchors=anchors_of())
    if getattr(criterion, "needs_quality", False):
        return criterion(logits, targets, quality=0.8 * targets.pos_mask)
    return criterion(logits, targets)


def one_hot(targets: DenseTargets) -> Tensor:
    return targets.labels.unsqueeze(-1) == torch.arange(K)


@pytest.mark.parametrize("name", NAMES)
def test_gives_a_positive_scalar_with_gradients_on_every_level(name: str):
    logits = outputs_for(name)
    loss = apply(build(name), logits, targets_of())
    assert loss.dim() == 0 and loss.isfinite() and loss > 0
    loss.backward()
    for level in logits:
        assert level.grad.isfinite().all() and level.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_ignored_anchors_have_no_gradient(name: str):
    logits, targets = outputs_for(name), targets_of()
    apply(build(name), logits, targets).backward()
    gradient = per_anchor([level.grad for level in logits])
    assert not gradient[targets.labels < 0].any()
    assert gradient[targets.pos_mask].any()


@pytest.mark.parametrize("name", NAMES)
def test_all_ignored_is_zero(name: str):
    logits, targets = outputs_for(name), targets_of()
    targets.labels.fill_(-1)
    loss = apply(build(name), logits, targets)
    loss.backward()
    assert loss == 0
    assert not any(level.grad.any() for level in logits)


@pytest.mark.parametrize("name", NAMES)
def test_falls_when_the_logits_descend(name: str):
    logits, targets = outputs_for(name), targets_of()
    criterion = build(name)
    optimizer = torch.optim.SGD(logits, lr=0.5)
    losses = []
    for _ in range(6):
        loss = apply(criterion, logits, targets)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_summed_in_float32(name: str):
    exact = apply(build(name), outputs_for(name), targets_of())
    half = [level.bfloat16() for level in outputs_for(name)]
    loss = apply(build(name), half, targets_of())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0)


def test_bce_is_torchs():
    logits, targets = head_outputs(), targets_of()
    x, valid = per_anchor(logits), targets.labels >= 0
    expected = F.binary_cross_entropy_with_logits(
        x[valid], one_hot(targets)[valid].float(), reduction="sum"
    )
    torch.testing.assert_close(build("BCE")(logits, targets), expected)


def test_balanced_bce_weighs_positives_by_alpha():
    logits, targets = head_outputs(), targets_of()
    x, valid, truth = per_anchor(logits), targets.labels >= 0, one_hot(targets)
    weight = torch.where(truth, 0.75, 0.25)
    expected = F.binary_cross_entropy_with_logits(
        x[valid], truth[valid].float(), weight[valid], reduction="sum"
    )
    loss = build("BalancedBCE", FOCAL_LOSS_ALPHA=0.75)
    torch.testing.assert_close(loss(logits, targets), expected)


def test_focal_loss_reads_alpha_and_gamma():
    logits, targets = head_outputs(), targets_of()
    expected = sigmoid_focal_loss(logits, targets.labels, K, 0.6, 1.5, kernel="reference")
    loss = build("FocalLoss", FOCAL_LOSS_ALPHA=0.6, FOCAL_LOSS_GAMMA=1.5)
    torch.testing.assert_close(loss(logits, targets), expected)


def test_focal_loss_star_reads_its_keys():
    logits, targets = head_outputs(), targets_of()
    valid = targets.labels >= 0
    x, truth = per_anchor(logits)[valid], one_hot(targets)[valid]
    keys = {"FOCAL_STAR_GAMMA": 4.0, "FOCAL_STAR_BETA": 0.5, "FOCAL_STAR_ALPHA": 0.3}
    expected = focal_loss_star(x, truth, 4.0, 0.5, 0.3).sum()
    torch.testing.assert_close(build("FocalLossStar", **keys)(logits, targets), expected)


@pytest.mark.parametrize("name", FOCAL_FAMILY)
def test_focal_family_from_features_equals_from_logits(name: str):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, NUM_ANCHORS * K, 3, padding=1)
    features = [torch.randn(2, 4, h, w) for h, w in SHAPES]
    criterion, targets = build(name), targets_of()
    expected = criterion([conv(x) for x in features], targets)
    expected_grad = torch.autograd.grad(expected, conv.weight)[0]
    got = criterion.from_features(features, conv, targets)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, conv.weight)[0], expected_grad)


def with_extra(targets: DenseTargets) -> DenseTargets:
    """Positive anchors of both images also show the next class, one of them all classes."""
    images, anchors = targets.pos_mask.nonzero(as_tuple=True)
    classes = (targets.labels[images, anchors] + 1) % K
    rows = torch.stack([images, anchors, classes], dim=1)
    more = rows[:1] + torch.tensor([0, 0, 1])
    assert more[0, 2] < K and len(rows) >= 4
    return dataclasses.replace(targets, extra=torch.cat([rows, more]))


def dense_reference(name: str, logits: list[Tensor], targets: DenseTargets) -> Tensor:
    """The loss of a multi-hot truth, entry by entry in float64, from the formula."""
    x, truth = per_anchor(logits).double(), one_hot(targets)
    truth[targets.extra.unbind(1)] = True
    p = x.sigmoid()
    p_t = torch.where(truth, p, 1 - p)
    alphas = torch.tensor(class_alphas(NEEDED["ClassBalancedFocal"]["CLASS_COUNTS"])).double()
    loss, alpha = {
        "BCE": (-p_t.log(), None),
        "BalancedBCE": (-p_t.log(), 0.25),
        "FocalLoss": (-((1 - p_t) ** 2) * p_t.log(), 0.25),
        "FocalLossStar": (-(2 * torch.where(truth, x, -x) + 1).sigmoid().log() / 2, None),
        "ClassBalancedFocal": (-((1 - p_t) ** 2) * p_t.log(), alphas.expand(truth.shape)),
    }[name]
    if alpha is not None:
        alpha = torch.as_tensor(alpha, dtype=torch.float64)
        loss = loss * torch.where(truth, alpha, 1 - alpha)
    return loss[targets.labels >= 0].sum()


MULTI_LABEL = (*FOCAL_FAMILY, "ClassBalancedFocal", "FocalLossStar")


@pytest.mark.parametrize("name", MULTI_LABEL)
def test_further_classes_equal_a_multi_hot_truth(name: str):
    logits, targets = head_outputs(), with_extra(targets_of())
    expected = dense_reference(name, logits, targets)
    criterion = build(name)
    got = criterion(logits, targets)
    assert criterion.multi_label
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0)
    wanted = torch.autograd.grad(expected, logits)
    for mine, want in zip(torch.autograd.grad(got, logits), wanted, strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MULTI_LABEL)
def test_no_further_classes_change_nothing(name: str):
    logits, targets = head_outputs(), targets_of()
    none = dataclasses.replace(targets, extra=torch.zeros(0, 3, dtype=torch.long))
    assert build(name)(logits, none) == build(name)(logits, targets)


@pytest.mark.parametrize("name", FOCAL_FAMILY)
def test_further_classes_count_from_features_too(name: str):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, NUM_ANCHORS * K, 3, padding=1)
    features = [torch.randn(2, 4, h, w, requires_grad=True) for h, w in SHAPES]
    leaves = [*features, conv.weight, conv.bias]
    targets = with_extra(targets_of())
    expected = dense_reference(name, [conv(x) for x in features], targets)
    got = build(name).from_features(features, conv, targets)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0)
    wanted = torch.autograd.grad(expected, leaves)
    for mine, want in zip(torch.autograd.grad(got, leaves), wanted, strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["OHEM", "QualityFocalLoss", "VarifocalLoss"])
def test_other_losses_refuse_further_classes(name: str):
    with pytest.raises(ValueError, match=f"{name}.*MULTI_LABEL_IOU_THRESH to 1"):
        apply(build(name), head_outputs(), with_extra(targets_of()))


@pytest.mark.parametrize("criterion", [FocalLoss, BCE, BalancedBCE])
def test_unknown_kernel_is_refused(criterion: type[nn.Module]):
    with pytest.raises(ValueError, match="kernel must be one of"):
        criterion(kernel="cuda")


@pytest.mark.parametrize("keys", OHEM_FORMS)
def test_ohem_is_the_cross_entropy_of_what_it_selects(keys: dict):
    logits, targets = head_outputs(), targets_of()
    criterion = build("OHEM", **keys)
    selected = criterion.select(logits, targets, anchors_of())
    chosen = selected >= 0
    assert 0 < chosen.sum() < (targets.labels >= 0).sum()
    assert torch.equal(selected[chosen], targets.labels[chosen])
    expected = F.binary_cross_entropy_with_logits(
        per_anchor(logits)[chosen], one_hot(targets)[chosen].float(), reduction="sum"
    )
    loss = criterion(logits, targets, anchors_of())
    torch.testing.assert_close(loss, expected)
    # The gradient is that of the chosen anchors' loss alone.
    wanted = torch.autograd.grad(expected, logits)
    for got, want in zip(torch.autograd.grad(loss, logits), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_ohem_reads_its_keys():
    criterion = build(
        "OHEM",
        OHEM_MODE="ratio",
        OHEM_BATCH=64,
        OHEM_NMS_THRESH=0.7,
        OHEM_NEG_POS_RATIO=2.0,
        OHEM_MIN_NEG=5,
        LOSS_KERNEL="reference",
    )
    assert (criterion.mode, criterion.batch_size, criterion.nms_thresh) == ("ratio", 64, 0.7)
    assert (criterion.neg_pos_ratio, criterion.min_negatives) == (2.0, 5)
    assert criterion.kernel == "reference" and criterion.needs_anchors
    assert not build("OHEM", OHEM_NMS_THRESH=1.0).needs_anchors


def test_ohem_selects_in_each_image_by_itself():
    # In image 0 every anchor is harder than any of image 1; both give the same number.
    logits, targets = head_outputs(), targets_of()
    logits = [level.detach() * 0.1 + torch.tensor([4.0, -4.0]).view(2, 1, 1, 1) for level in logits]
    selected = build("OHEM", OHEM_BATCH=7, OHEM_NMS_THRESH=1.0).select(logits, targets)
    assert (selected >= 0).sum(dim=1).tolist() == [7, 7]


def test_ohem_with_nms_asks_for_anchors():
    with pytest.raises(ValueError, match="OHEM_NMS_THRESH"):
        build("OHEM")(head_outputs(), targets_of())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": "top"}, "OHEM_MODE must be one of topk, ratio, got 'top'"),
        ({"batch_size": 0}, "OHEM_BATCH is 0"),
        ({"nms_thresh": 0.0}, "nms_thresh must be in"),
        ({"kernel": "cuda"}, "kernel must be one of"),
    ],
)
def test_ohem_refuses_bad_settings(keys: dict, message: str):
    with pytest.raises(ValueError, match=message):
        OHEM(**keys)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_class_balanced_focal_equals_the_formula(gamma: float):
    logits, targets = head_outputs(), targets_of()
    given = {"CLASS_BALANCE": "given", "CLASS_COUNTS": [], "CLASS_ALPHA": [0.1, 0.5, 0.9]}
    criterion = build("ClassBalancedFocal", FOCAL_LOSS_GAMMA=gamma, **given)
    valid, alphas = targets.labels >= 0, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    p, truth = per_anchor(logits)[valid].double().sigmoid(), one_hot(targets)[valid]
    p_t = torch.where(truth, p, 1 - p)
    expected = (-torch.where(truth, alphas, 1 - alphas) * (1 - p_t) ** gamma * p_t.log()).sum()
    got = criterion(logits, targets)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0)
    wanted = torch.autograd.grad(expected, logits)
    for mine, want in zip(torch.autograd.grad(got, logits), wanted, strict=True):
        torch.testing.assert_close(mine, want)


def test_equal_counts_are_the_focal_loss():
    logits, targets = head_outputs(), targets_of()
    for balance in ("inverse", "effective"):
        balanced = build("ClassBalancedFocal", CLASS_COUNTS=[7, 7, 7], CLASS_BALANCE=balance)
        torch.testing.assert_close(balanced(logits, targets), build("FocalLoss")(logits, targets))


def test_inverse_frequency_by_hand():
    # 1/n = 1, 1/2, 1/4: mean 7/12, w = 12/7, 6/7, 3/7; alpha = 1/2 has odds 1, so odds_k = w_k.
    alphas = class_alphas([1, 2, 4], alpha=0.5, balance="inverse")
    assert alphas == pytest.approx([12 / 19, 6 / 13, 3 / 10])


def test_effective_number_by_hand():
    # beta = 1/2: (1 - beta^n) / (1 - beta) = 1, 3/2; 1/E = 1, 2/3: mean 5/6, w = 6/5, 4/5.
    assert class_alphas([1, 2], 0.5, "effective", 0.5) == pytest.approx([6 / 11, 4 / 9])


def test_effective_number_lies_between_equal_and_inverse():
    counts = [10, 1000, 100000]
    inverse = class_alphas(counts, balance="inverse")
    assert class_alphas(counts, balance="effective", beta=0.0) == pytest.approx([0.25] * 3)
    near_one = class_alphas(counts, balance="effective", beta=1 - 1e-9)
    assert near_one == pytest.approx(inverse, rel=1e-3)
    between = class_alphas(counts, balance="effective", beta=0.999)
    assert inverse[0] > between[0] > between[1] > between[2] > inverse[2]


def test_a_class_without_objects_gets_the_common_alpha():
    # and the others are as if it did not exist
    alphas = class_alphas([5, 0, 20], balance="inverse")
    assert alphas[1] == 0.25
    assert [alphas[0], alphas[2]] == class_alphas([5, 20], balance="inverse")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], 0.25, "median"), "balance must be one of inverse, effective, got 'median'"),
        (([1, 2], -1), "alpha must be in"),
        (([1, 2], 0.25, "effective", 1.0), "beta must be in"),
        (([0, 0],), "not all 0"),
        (([-1, 3],), "counts must be >= 0"),
    ],
)
def test_class_alphas_refuses_bad_arguments(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        class_alphas(*arguments)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"CLASS_COUNTS": [3, 4]}, "CLASS_COUNTS has 2 values.*NUM_CLASSES = 3"),
        ({"CLASS_BALANCE": "given"}, "CLASS_ALPHA has 0 values"),
        ({"CLASS_ALPHA": [0.5] * K}, "CLASS_ALPHA is set, but CLASS_BALANCE 'effective'"),
        ({"CLASS_BALANCE": "auto"}, "must be one of given, inverse, effective, got 'auto'"),
    ],
)
def test_class_balanced_focal_names_the_key_at_fault(keys: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build("ClassBalancedFocal", **keys)


def test_class_balanced_focal_without_counts_can_only_be_built():
    criterion = build("ClassBalancedFocal", CLASS_COUNTS=[])
    for targets in (targets_of(), with_extra(targets_of())):
        with pytest.raises(ValueError, match=r"CLASS_COUNTS is empty.*count_classes"):
            criterion(head_outputs(), targets)


def test_class_alphas_stay_out_of_checkpoints():
    assert not ClassBalancedFocal(alphas=[0.2, 0.3]).state_dict()
