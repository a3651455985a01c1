"""The drop-in for fvcore's focal loss: fvcore's numbers, and finite ones where fvcore has none."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
from fvcore import nn as fvcore_nn
from fvcore.nn import sigmoid_focal_loss as fvcore_focal_loss

from retinanet_ext.losses import fvcore
from retinanet_ext.losses.fvcore import sigmoid_focal_loss

REDUCTIONS = ("none", "mean", "sum")


def problem(soft: bool, shape: tuple[int, ...] = (3, 4, 5)):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(shape, generator=generator) * 3
    targets = torch.rand(shape, generator=generator)
    return inputs, targets if soft else targets.round()


def value_and_gradient(function, inputs, targets, alpha, gamma, reduction):
    leaf = inputs.clone().requires_grad_()
    loss = function(leaf, targets, alpha, gamma, reduction)
    # Unequal weights, so that a gradient in the wrong place is seen.
    weights = torch.arange(1.0, loss.numel() + 1).view(loss.shape)
    (loss * weights).sum().backward()
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("name", [name for name in fvcore.__all__ if not name.endswith("_jit")])
def test_same_signature_and_defaults(name: str):
    ours, theirs = (inspect.signature(getattr(x, name)) for x in (fvcore, fvcore_nn))
    assert [(p.name, p.default) for p in ours.parameters.values()] == [
        (p.name, p.default) for p in theirs.parameters.values()
    ]


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("alpha", [-1, 0.25])
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
def test_equals_fvcore(monkeypatch, soft, reduction, alpha, gamma):
    monkeypatch.setitem(fvcore.CHUNK, "cpu", 7)
    inputs, targets = problem(soft)
    expected = value_and_gradient(fvcore_focal_loss, inputs, targets, alpha, gamma, reduction)
    got = value_and_gradient(sigmoid_focal_loss, inputs, targets, alpha, gamma, reduction)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("gamma", [0, 0.1, 0.5, 1, 2])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_gradcheck_in_double_precision(soft, gamma):
    inputs, targets = problem(soft, (2, 6))
    inputs[0, 0] = 0
    inputs = inputs.double().requires_grad_()
    for reduction in REDUCTIONS:
        assert torch.autograd.gradcheck(
            lambda x, r=reduction: sigmoid_focal_loss(x, targets, 0.25, gamma, r), inputs
        )


@pytest.mark.parametrize("gamma", [0, 0.1, 0.5, 1, 2, 5])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_finite_for_saturated_logits(gamma, target):
    inputs = torch.tensor([-1e4, -100, -30, -17, 0, 17, 30, 100, 1e4])
    arguments = (inputs, torch.full_like(inputs, target), 0.25, gamma, "none")
    loss, gradient = value_and_gradient(sigmoid_focal_loss, *arguments)
    assert loss.isfinite().all() and gradient.isfinite().all()


def test_fvcore_is_not_finite_there():
    # The reason for this file: should fvcore be repaired one day, it can be used itself.
    inputs = torch.tensor([17.0])
    _, gradient = value_and_gradient(fvcore_focal_loss, inputs, torch.ones(1), 0.25, 0.5, "sum")
    assert gradient.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype):
    inputs, targets = problem(soft=True)
    inputs = inputs.to(dtype)
    expected = value_and_gradient(fvcore_focal_loss, inputs, targets, 0.25, 2, "sum")
    got = value_and_gradient(sigmoid_focal_loss, inputs, targets, 0.25, 2, "sum")
    assert got[0].dtype == torch.float32 and got[1].dtype == dtype
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    "relayout",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(0, 3),
        lambda x: x[:, ::2, 1:],
    ],
    ids=["channels_last", "transposed", "strided"],
)
@pytest.mark.parametrize("both", [False, True], ids=["inputs", "inputs_and_targets"])
def test_any_memory_layout(relayout, both):
    inputs, targets = problem(soft=False, shape=(2, 3, 4, 5))
    laid_out = relayout(inputs)
    targets = relayout(targets) if both else relayout(targets).clone().contiguous()
    for reduction in REDUCTIONS:
        leaf = laid_out.detach().requires_grad_()
        loss = sigmoid_focal_loss(leaf, targets, 0.25, 2, reduction)
        loss.sum().backward()
        plain = laid_out.contiguous().requires_grad_()
        expected = fvcore_focal_loss(plain, targets, 0.25, 2, reduction)
        expected.sum().backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(leaf.grad, plain.grad)


@pytest.mark.parametrize("shape", [(), (0, 4), (1,)])
def test_scalars_and_empty_inputs(shape):
    inputs, targets = problem(soft=False, shape=shape)
    for reduction in REDUCTIONS:
        loss, gradient = value_and_gradient(sigmoid_focal_loss, inputs, targets, 0.25, 2, reduction)
        assert gradient.shape == shape
        assert loss.isfinite().all()
    assert sigmoid_focal_loss(torch.zeros(0), torch.zeros(0), reduction="mean") == 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16])
def test_targets_of_any_dtype(dtype):
    inputs, targets = problem(soft=False)
    got = sigmoid_focal_loss(inputs, targets.to(dtype), reduction="sum")
    torch.testing.assert_close(got, fvcore_focal_loss(inputs, targets, reduction="sum"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha": 1.5}, "alpha must be in"),
        ({"gamma": -1}, "gamma must be"),
        ({"reduction": "avg"}, "'avg'"),
        ({"targets": torch.zeros(2)}, r"\(3, 4, 5\), got \(2,\)"),
        ({"targets": torch.zeros(3, 4, 5, requires_grad=True)}, "detach"),
    ],
)
def test_nonsense_is_refused_by_name(changes, words):
    inputs, targets = problem(soft=False)
    with pytest.raises(ValueError, match=words):
        sigmoid_focal_loss(**{"inputs": inputs, "targets": targets, **changes})


def test_all_losses_of_fvcore_have_their_names_here():
    theirs = {
        name for name in dir(fvcore_nn) if "_loss" in name and callable(getattr(fvcore_nn, name))
    }
    assert theirs == set(fvcore.__all__)


def boxes_problem():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 9, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + torch.rand(2, 9, 2, generator=generator) * 15 + 1], dim=2)
    return boxes[0], boxes[1]


def compiled(function):
    """By TorchScript, from a function of somebody's that calls it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # recent PyTorch deprecates it
        return torch.jit.script(function)


@pytest.mark.parametrize("script", [False, True], ids=["eager", "scripted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("name", "further"),
    [
        ("sigmoid_focal_loss_jit", {"alpha": 0.25, "gamma": 2.0}),
        ("sigmoid_focal_loss", {"alpha": -1.0, "gamma": 0.5}),
        ("sigmoid_focal_loss_star", {"alpha": 0.25, "gamma": 2.0}),
        ("sigmoid_focal_loss_star_jit", {}),
        ("giou_loss", {}),
        ("smooth_l1_loss", {"beta": 0.0}),
        ("smooth_l1_loss", {"beta": 1.3}),
    ],
)
def test_every_loss_equals_fvcores(name: str, further: dict, reduction: str, script: bool):
    ours, theirs = getattr(fvcore, name), getattr(fvcore_nn, name)
    if script:
        ours = compiled(ours)
    inputs, targets = boxes_problem() if name == "giou_loss" else problem(soft=True)
    got, expected = (
        loss_and_gradient(f, inputs, targets, **further, reduction=reduction)
        for f in (ours, theirs)
    )
    torch.testing.assert_close(got, expected)


def loss_and_gradient(function, inputs, targets, **further):
    leaf = inputs.clone().requires_grad_()
    loss = function(leaf, targets, **further)
    weights = torch.arange(1.0, loss.numel() + 1).view(loss.shape)
    (loss * weights).sum().backward()
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_the_scripted_focal_loss_has_the_numbers_of_the_other(gamma: float, target: float):
    inputs = torch.tensor([-1e4, -100, -88, -30, -17, -1, 0, 1, 17, 30, 88, 100, 1e4])
    arguments = (inputs, torch.full_like(inputs, target), 0.25, gamma, "none")
    got = value_and_gradient(compiled(sigmoid_focal_loss), *arguments)
    assert got[0].isfinite().all() and got[1].isfinite().all()
    expected = value_and_gradient(sigmoid_focal_loss, *arguments)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def call_all(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    first = fvcore.sigmoid_focal_loss_jit(x, y, alpha=0.25, gamma=2.0, reduction="sum")
    return first + fvcore.smooth_l1_loss(x, y, beta=0.1, reduction="sum")


def test_code_that_is_scripted_may_call_them():
    inputs, targets = problem(soft=False)
    torch.testing.assert_close(compiled(call_all)(inputs, targets), call_all(inputs, targets))


@pytest.mark.parametrize("name", ["giou_loss", "sigmoid_focal_loss_star", "sigmoid_focal_loss"])
def test_an_empty_mean_is_zero_and_an_odd_reduction_refused(name: str):
    loss, empty = getattr(fvcore, name), torch.zeros(0, 4)
    assert loss(empty, empty, reduction="mean") == 0
    assert fvcore.smooth_l1_loss(empty, empty, 0.1, "mean") == 0
    with pytest.raises(ValueError, match="'avg'"):
        loss(empty, empty, reduction="avg")


def test_a_star_without_steepness_is_refused():
    inputs, targets = problem(soft=False)
    with pytest.raises(ValueError, match="gamma of FL"):
        fvcore.sigmoid_focal_loss_star(inputs, targets, gamma=0)
