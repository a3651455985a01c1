"""The chunked focal loss equals the readable one, however the logits are cut and laid out."""

from __future__ import annotations

import pytest
import torch

from retinanet_ext.losses import sigmoid_focal_loss
from retinanet_ext.losses.kernels import chunked
from retinanet_ext.losses.kernels.chunked import chunks, focal_loss_and_gradient

A, K, N = 3, 7, 2
SHAPES = ((6, 5), (3, 3), (1, 2))


def head_outputs(dtype: torch.dtype = torch.float64, spread: float = 4.0):
    """Per-level logits and labels of which most are background, some ignored, few classes."""
    generator = torch.Generator().manual_seed(0)
    levels = [
        (torch.randn(N, A * K, h, w, generator=generator, dtype=torch.float64) * spread).to(dtype)
        for h, w in SHAPES
    ]
    anchors = sum(h * w * A for h, w in SHAPES)
    labels = torch.randint(-1, K + 1, (N, anchors), generator=generator)
    labels[torch.rand(N, anchors, generator=generator) < 0.6] = K
    return levels, labels


def reference(levels, labels, alpha: float, gamma: float):
    leaves = [x.detach().clone().requires_grad_() for x in levels]
    loss = sigmoid_focal_loss(leaves, labels, K, alpha, gamma, kernel="reference")
    loss.backward()
    return loss.detach(), [x.grad for x in leaves]


@pytest.mark.parametrize("size", [5, 60, 400, 1 << 17])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.25, -1])
def test_equals_the_reference_for_every_chunk_size(monkeypatch, size, gamma, alpha):
    monkeypatch.setitem(chunked.CHUNK, "cpu", size)
    levels, labels = head_outputs()
    expected, expected_gradients = reference(levels, labels, alpha, gamma)
    loss, gradients = focal_loss_and_gradient(levels, labels, K, alpha, gamma)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("size", [60, 1 << 17])
def test_channels_last_logits_give_channels_last_gradients(monkeypatch, size):
    monkeypatch.setitem(chunked.CHUNK, "cpu", size)
    levels, labels = head_outputs()
    _, expected = focal_loss_and_gradient(levels, labels, K, 0.25, 2.0)
    moved = [x.contiguous(memory_format=torch.channels_last) for x in levels]
    _, gradients = focal_loss_and_gradient(moved, labels, K, 0.25, 2.0)
    assert gradients[0].is_contiguous(memory_format=torch.channels_last)
    for got, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype):
    levels, labels = head_outputs(dtype)
    exact, exact_gradients = reference([x.double() for x in levels], labels, 0.25, 2.0)
    loss, gradients = focal_loss_and_gradient(levels, labels, K, 0.25, 2.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
    for got, wanted in zip(gradients, exact_gradients, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(
            got, wanted.to(dtype), rtol=2e-2 if dtype.itemsize < 4 else 1e-4, atol=1e-6
        )


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("magnitude", [17.0, 30.0, 100.0])
def test_finite_for_saturated_logits(gamma: float, magnitude: float):
    levels, labels = head_outputs(torch.float32)
    levels = [x.sign() * magnitude for x in levels]
    loss, gradients = focal_loss_and_gradient(levels, labels, K, 0.25, gamma)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradients)


def test_without_gradient_none_is_made():
    levels, labels = head_outputs()
    loss, gradients = focal_loss_and_gradient(levels, labels, K, 0.25, 2.0, with_gradient=False)
    assert gradients == []
    torch.testing.assert_close(loss, reference(levels, labels, 0.25, 2.0)[0])


def test_any_other_layout_is_copied():
    levels, labels = head_outputs()
    expected, expected_gradients = focal_loss_and_gradient(levels, labels, K, 0.25, 2.0)
    wider = [torch.cat([x, x], 3)[:, :, :, : x.shape[3]] for x in levels]
    loss, gradients = focal_loss_and_gradient(wider, labels, K, 0.25, 2.0)
    assert loss == expected
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        assert torch.equal(got, wanted)


def test_scale_multiplies_the_gradient_alone():
    levels, labels = head_outputs()
    expected, expected_gradients = focal_loss_and_gradient(levels, labels, K, 0.25, 2.0)
    loss, gradients = focal_loss_and_gradient(levels, labels, K, 0.25, 2.0, scale=8.0)
    assert loss == expected
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        assert torch.equal(got, 8 * wanted)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [8, 1 << 20])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_correcting_everywhere_equals_correcting_the_few(monkeypatch, layout, size, gamma):
    monkeypatch.setitem(chunked.CHUNK, "cuda", size)
    levels, labels = head_outputs()
    levels = [x.contiguous(memory_format=layout) for x in levels]
    expected, expected_gradients = focal_loss_and_gradient(levels, labels, K, 0.25, gamma)
    monkeypatch.setattr(chunked, "_correct_few", chunked._correct_without_waiting)
    loss, gradients = focal_loss_and_gradient(levels, labels.int(), K, 0.25, gamma)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)


def test_nothing_waits_for_the_device():
    # On the meta device there are no values, so asking for one raises.
    levels, labels = head_outputs()
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool((labels.to("meta") > 0).any())
    levels = [x.to("meta") for x in levels]
    _, gradients = focal_loss_and_gradient(levels, labels.to("meta"), K, 0.25, 2.0)
    assert [g.shape for g in gradients] == [x.shape for x in levels]


@pytest.mark.parametrize("size", [1, 7, 50, 300, 10**6])
def test_chunks_cover_every_entry_once(size: int):
    x = torch.zeros(2, 3, 4, 5, 2)
    for index in chunks(x, size):
        assert x[index].is_contiguous()
        x[index] += 1
    assert (x == 1).all()
