"""Further true classes change a sum by what turning their entries positive changes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retinanet_ext.losses import (
    conv_extra_positive_loss,
    extra_positive_loss,
    focal_loss,
    sigmoid_focal_loss,
)

K, A = 3, 2
SHAPES = ((2, 3), (1, 1))
EXTRA = torch.tensor([[0, 0, 1], [0, 0, 2], [1, 11, 0], [1, 13, 2]])


def head_outputs():
    features = [torch.randn(2, 4, h, w, dtype=torch.float64) for h, w in SHAPES]
    weight = torch.randn(A * K, 4, 3, 3, dtype=torch.float64)
    bias = torch.randn(A * K, dtype=torch.float64)
    return features, weight, bias


def test_background_made_positive_equals_its_label():
    # An anchor of background with one further class is an anchor of that class.
    features, weight, bias = head_outputs()
    logits = [F.conv2d(x, weight, bias, padding=1).requires_grad_() for x in features]
    labels = torch.full((2, 14), K)
    extra = EXTRA[1:]
    marked = labels.clone()
    marked[extra[:, 0], extra[:, 1]] = extra[:, 2]
    expected = sigmoid_focal_loss(logits, marked, K, kernel="reference")
    got = sigmoid_focal_loss(logits, labels, K, kernel="reference")
    got = got + extra_positive_loss(logits, extra, K, focal_loss)
    torch.testing.assert_close(got, expected)
    wanted = torch.autograd.grad(expected, logits)
    for mine, want in zip(torch.autograd.grad(got, logits), wanted, strict=True):
        torch.testing.assert_close(mine, want)


def test_from_features_equals_from_logits():
    features, weight, bias = head_outputs()
    logits = [F.conv2d(x, weight, bias, padding=1) for x in features]
    got = conv_extra_positive_loss(features, weight, bias, EXTRA, K, focal_loss)
    torch.testing.assert_close(got, extra_positive_loss(logits, EXTRA, K, focal_loss))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_rows_add_zero(dtype: torch.dtype):
    logits = [torch.randn(2, A * K, h, w, requires_grad=True).to(dtype) for h, w in SHAPES]
    loss = extra_positive_loss(logits, EXTRA[:0], K, focal_loss)
    assert loss == 0 and loss.dtype == torch.float32
