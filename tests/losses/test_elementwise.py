"""Entries picked from a head's outputs, or made from the features alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retinanet_ext.losses.elementwise import conv_entry_logits, element_logits

K, A = 3, 2
SHAPES = ((3, 4), (0, 2), (2, 1), (1, 1))
SIZES = [h * w * A for h, w in SHAPES]


def rows_of(num_images: int = 2) -> torch.Tensor:
    """Every entry there is, in a mixed order, some of them twice."""
    grid = torch.cartesian_prod(torch.arange(num_images), torch.arange(sum(SIZES)), torch.arange(K))
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))
    return torch.cat([grid[order], grid[:5]])


def table(logits) -> torch.Tensor:
    """(N, R, K) of a head's outputs."""
    levels = [
        x.view(len(x), A, K, *x.shape[2:]).permute(0, 3, 4, 1, 2).reshape(len(x), -1, K)
        for x in logits
    ]
    return torch.cat(levels, dim=1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_every_entry_is_found_with_its_gradient(channels_last: bool):
    logits = [torch.randn(2, A * K, h, w) for h, w in SHAPES]
    if channels_last:
        logits = [x.contiguous(memory_format=torch.channels_last) for x in logits]
    logits = [x.requires_grad_() for x in logits]
    rows = rows_of()
    got, expected = element_logits(logits, rows, K), table(logits)[rows.unbind(1)]
    assert torch.equal(got, expected)
    weights = torch.randn(len(rows))
    wanted = torch.autograd.grad((expected * weights).sum(), logits)
    for mine, want in zip(
        torch.autograd.grad((got * weights).sum(), logits, allow_unused=True), wanted, strict=True
    ):
        assert mine is None if want.numel() == 0 else torch.allclose(mine, want)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (3, 5)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_entries_of_a_convolution_equal_those_of_its_output(kernel, with_bias: bool):
    inputs = [torch.randn(2, 4, h, w, dtype=torch.float64) for h, w in SHAPES if h]
    weight = torch.randn(A * K, 4, *kernel, dtype=torch.float64)
    bias = torch.randn(A * K, dtype=torch.float64) if with_bias else None
    leaves = [*inputs, weight, *([bias] if bias is not None else [])]
    for leaf in leaves:
        leaf.requires_grad_()
    rows = rows_of()
    got = conv_entry_logits(inputs, weight, bias, rows, K)
    logits = [F.conv2d(x, weight, bias, padding="same") for x in inputs]
    expected = table(logits)[rows.unbind(1)]
    torch.testing.assert_close(got, expected)
    weights = torch.randn(len(rows), dtype=torch.float64)
    wanted = torch.autograd.grad((expected * weights).sum(), leaves)
    for mine, want in zip(torch.autograd.grad((got * weights).sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(mine, want)


def test_no_rows_give_nothing():
    logits = [torch.randn(2, A * K, h, w, requires_grad=True) for h, w in SHAPES]
    rows = torch.zeros(0, 3, dtype=torch.long)
    assert element_logits(logits, rows, K).shape == (0,)
    features = [torch.randn(2, 4, h, w) for h, w in SHAPES]
    assert conv_entry_logits(features, torch.randn(A * K, 4, 3, 3), None, rows, K).shape == (0,)


def test_half_precision_becomes_float32():
    logits = [torch.randn(2, A * K, h, w).bfloat16() for h, w in SHAPES]
    assert element_logits(logits, rows_of(), K).dtype == torch.float32
    features = [torch.randn(2, 4, h, w).bfloat16() for h, w in SHAPES]
    weight = torch.randn(A * K, 4, 3, 3)
    got = conv_entry_logits(features, weight, None, rows_of(), K)
    plain = [F.conv2d(x.float(), weight, padding="same") for x in features if x.numel()]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, table(plain)[rows_of().unbind(1)], rtol=1e-4, atol=1e-4)


def test_a_head_without_locations_is_refused():
    with pytest.raises(ValueError, match="at least one location"):
        element_logits([torch.zeros(1, A * K, 0, 1)], torch.zeros(0, 3, dtype=torch.long), K)
