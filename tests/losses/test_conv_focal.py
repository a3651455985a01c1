"""The convolution fused with the focal loss equals the two one after the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retinanet_ext.losses import conv_focal_loss, sigmoid_focal_loss

A, K, C, N = 2, 7, 5, 3
SHAPES = ((4, 6), (3, 2), (1, 1))


def problem(dtype=torch.float64, num_classes: int = K, kernel_size=(3, 3), seed: int = 0):
    """Features of three levels, weight, bias, and labels of every kind."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    features = [normal(N, C, h, w) for h, w in SHAPES]
    weight, bias = normal(A * num_classes, C, *kernel_size) / 3, normal(A * num_classes) - 1
    anchors = sum(h * w * A for h, w in SHAPES)
    labels = torch.randint(-1, num_classes + 1, (N, anchors), generator=generator)
    assert set(labels.unique().tolist()) == set(range(-1, num_classes + 1))
    return features, weight, bias, labels


def one_after_the_other(features, weight, bias, labels, num_classes, alpha, gamma):
    logits = [F.conv2d(x, weight, bias, padding="same") for x in features]
    return sigmoid_focal_loss(logits, labels, num_classes, alpha, gamma, kernel="reference")


def loss_and_gradients(function, features, weight, bias, *arguments, **options):
    """The loss and the gradients of its third, by features, weight and bias."""
    leaves = [x.clone().requires_grad_() for x in (*features, weight)]
    bias = None if bias is None else bias.clone().requires_grad_()
    loss = function(leaves[:-1], leaves[-1], bias, *arguments, **options)
    (loss / 3).backward()
    return loss.detach(), [x.grad for x in (*leaves, *([] if bias is None else [bias]))]


def compare(features, weight, bias, labels, num_classes=K, alpha=0.25, gamma=2.0, tol=1e-10, **opt):
    arguments = (features, weight, bias, labels, num_classes, alpha, gamma)
    loss, gradients = loss_and_gradients(conv_focal_loss, *arguments, **opt)
    expected, expected_gradients = loss_and_gradients(one_after_the_other, *arguments)
    torch.testing.assert_close(loss, expected, rtol=tol, atol=tol)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=tol, atol=tol)


# 24 locations of 8 bytes: a channel of one image of the largest level is 192 bytes.
@pytest.mark.parametrize("max_chunk_bytes", [1, 192 * 3, 192 * 5 * N, 192 * A * K, None])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1, 0.5), (0.75, 0.0)])
def test_equals_convolution_then_loss_however_it_is_cut(max_chunk_bytes, alpha, gamma):
    compare(*problem(), alpha=alpha, gamma=gamma, max_chunk_bytes=max_chunk_bytes)


def test_many_classes_that_no_piece_divides():
    # 24 * 20 channels of 8 bytes hold 20 of 37 classes; pieces are 19 and 18 (no room for 32).
    compare(*problem(num_classes=37), num_classes=37, max_chunk_bytes=24 * 8 * N * 20)


@pytest.mark.parametrize("kernel_size", [(1, 1), (5, 3)])
def test_other_kernel_sizes(kernel_size):
    compare(*problem(kernel_size=kernel_size), max_chunk_bytes=2000)


def test_float32_and_channels_last():
    features, weight, bias, labels = problem(torch.float32)
    compare(features, weight, bias, labels, tol=1e-5, max_chunk_bytes=1000)
    features = [x.contiguous(memory_format=torch.channels_last) for x in features]
    weight = weight.contiguous(memory_format=torch.channels_last)
    compare(features, weight, bias, labels, tol=1e-5, max_chunk_bytes=1000)
    features[0].requires_grad_()
    conv_focal_loss(features, weight, bias, labels, K).backward()
    assert features[0].grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("label", [-1, K], ids=["all_ignored", "all_background"])
def test_no_positives(label):
    features, weight, bias, labels = problem()
    compare(features, weight, bias, torch.full_like(labels, label), max_chunk_bytes=2000)


def test_without_bias():
    features, weight, _, labels = problem()
    compare(features, weight, None, labels, max_chunk_bytes=2000)


def test_reference_kernel_and_chunked_kernel():
    compare(*problem(), kernel="reference")
    compare(*problem(), kernel="chunked")


def test_no_images():
    features, weight, bias, labels = problem()
    compare([x[:0] for x in features], weight, bias, labels[:0])


def test_a_level_without_locations_adds_nothing():
    features, weight, bias, labels = problem()
    empty = torch.zeros(N, C, 0, 4, dtype=torch.float64, requires_grad=True)
    loss = conv_focal_loss([*features, empty], weight, bias, labels, K)
    loss.backward()
    assert loss == conv_focal_loss(features, weight, bias, labels, K)
    assert empty.grad.shape == empty.shape


def test_a_kept_graph_gives_the_same_gradient_again():
    features, weight, bias, labels = problem()
    weight.requires_grad_()
    loss = conv_focal_loss(features, weight, bias, labels, K)
    (first,) = torch.autograd.grad(3 * loss, weight, retain_graph=True)
    (second,) = torch.autograd.grad(3 * loss, weight)
    torch.testing.assert_close(first, second)
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        loss.backward()


def test_leaves_take_their_gradients_over_without_a_copy():
    features, weight, bias, labels = problem()
    weight.requires_grad_()
    loss = conv_focal_loss(features, weight, bias, labels, K)
    made = loss.grad_fn.gradients[0].data_ptr()
    loss.backward()
    assert weight.grad.data_ptr() == made


@pytest.mark.parametrize("wanted", ["features", "weight", "bias", "one level"])
def test_makes_only_the_gradients_that_are_asked_for(wanted):
    features, weight, bias, labels = problem()
    expected = loss_and_gradients(one_after_the_other, features, weight, bias, labels, K, 0.25, 2)[
        1
    ]
    chosen = {"features": features, "weight": [weight], "bias": [bias], "one level": [features[1]]}
    for x in chosen[wanted]:
        x.requires_grad_()
    loss = conv_focal_loss(features, weight, bias, labels, K, max_chunk_bytes=2000)
    made = loss.grad_fn.gradients
    (loss / 3).backward()
    # In the order of the gradients' list: weight, bias, levels.
    inputs, expected = [weight, bias, *features], [*expected[-2:], *expected[:-2]]
    for x, gradient, right in zip(inputs, made, expected, strict=True):
        assert (gradient is None) == (not x.requires_grad)
        if x.requires_grad:
            torch.testing.assert_close(x.grad, right)


def test_no_gradient_work_under_no_grad(monkeypatch):
    features, weight, bias, labels = problem()
    weight.requires_grad_()
    expected = conv_focal_loss(features, weight, bias, labels, K).detach()
    monkeypatch.setattr(
        "retinanet_ext.losses.kernels.conv_focal._convolution_backward",
        lambda *_: pytest.fail("a gradient was made"),
    )
    with torch.no_grad():
        loss = conv_focal_loss(features, weight, bias, labels, K)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected)


def test_half_precision_features_with_float32_weights():
    features, weight, bias, labels = problem(torch.float32)
    half = [x.bfloat16() for x in features]
    loss, gradients = loss_and_gradients(
        conv_focal_loss, half, weight, bias, labels, K, 0.25, 2.0, max_chunk_bytes=200
    )
    exact, exact_gradients = loss_and_gradients(
        one_after_the_other, [x.float() for x in half], weight, bias, labels, K, 0.25, 2.0
    )
    assert loss.dtype == torch.float32
    assert [g.dtype for g in gradients] == [torch.bfloat16] * 3 + [torch.float32] * 2
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
    for got, wanted in zip(gradients, exact_gradients, strict=True):
        error = (got.float() - wanted).norm() / wanted.norm()
        assert error < 1e-2


def test_half_precision_pieces_are_added_in_float32():
    features, weight, bias, labels = problem(torch.float32, num_classes=37)
    features = [x.bfloat16() for x in features]
    arguments = (features, weight, bias, labels, 37, 0.25, 2.0)
    _, whole = loss_and_gradients(conv_focal_loss, *arguments)
    _, pieces = loss_and_gradients(conv_focal_loss, *arguments, max_chunk_bytes=1)
    for got, wanted in zip(pieces, whole, strict=True):
        # Each piece is rounded once, to 2^-9; adding 74 of them in bfloat16 gives 0.0095.
        assert (got.float() - wanted.float()).norm() / wanted.float().norm() < 6e-3


def test_autocast_runs_the_convolution_in_its_precision():
    features, weight, bias, labels = problem(torch.float32)
    arguments = (labels, K, 0.25, 2.0)
    half = [x.bfloat16() for x in features]
    expected, expected_gradients = loss_and_gradients(
        conv_focal_loss, half, weight, bias, *arguments
    )
    leaves = [x.clone().requires_grad_() for x in (*features, weight, bias)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = conv_focal_loss(leaves[:3], *leaves[3:], *arguments)
    (loss / 3).backward()
    assert loss == expected
    for x, wanted in zip(leaves, expected_gradients, strict=True):
        assert x.grad.dtype == torch.float32
        assert torch.equal(x.grad, wanted.float())


def test_nothing_waits_for_the_device():
    # On the meta device there are no values, so asking for one raises.
    features, weight, bias, labels = (
        [y.to("meta") for y in x] if isinstance(x, list) else x.to("meta") for x in problem()
    )
    weight.requires_grad_()
    loss = conv_focal_loss(features, weight, bias, labels, K, max_chunk_bytes=2000)
    loss.backward()
    assert weight.grad.shape == weight.shape


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_classes": 4}, r"\(A\*4, C, kh, kw\) with odd kh and kw, got \(14, 5, 3, 3\)"),
        ({"weight": torch.zeros(14, 5, 2, 2)}, r"odd.*\(14, 5, 2, 2\)"),
        ({"bias": torch.zeros(7)}, r"bias must be \(14,\) as weight, got \(7,\)"),
        ({"features": []}, "at least one level"),
        ({"features": [torch.zeros(3, 4, 2, 2)]}, r"\(3, 5, Hi, Wi\).*got \(3, 4, 2, 2\)"),
        ({"labels": torch.zeros(3, 4)}, r"\(3, 62\).*got \(3, 4\)"),
        ({"max_chunk_bytes": 0}, "max_chunk_bytes must be at least 1, got 0"),
        ({"alpha": 2.0}, "alpha must be in"),
        ({"kernel": "fast"}, "'fast'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, words):
    features, weight, bias, labels = problem()
    arguments = {"features": features, "weight": weight, "bias": bias, "labels": labels}
    with pytest.raises(ValueError, match=words):
        conv_focal_loss(**{**arguments, "num_classes": K, **changes})


def test_mixed_precision_levels_are_refused():
    features, weight, bias, labels = problem()
    features[1] = features[1].float()
    with pytest.raises(ValueError, match=r"torch.float64 and torch.float32"):
        conv_focal_loss(features, weight, bias, labels, K)
