"""Group norm in the head: Detectron2's, and also on a map of one cell."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import get_norm
from detectron2.modeling import build_model

from retinanet_ext.modeling.heads.towers import build_tower
from tests.helpers.tiny import tiny_cfg


def test_values_are_those_of_detectron2s():
    tower, expected = build_tower(8, [64], "GN", 1)[1], get_norm("GN", 64)
    assert list(tower.state_dict()) == list(expected.state_dict())
    torch.nn.init.normal_(tower.weight), torch.nn.init.normal_(tower.bias)
    expected.load_state_dict(tower.state_dict())
    x = torch.randn(2, 64, 3, 5)
    assert torch.equal(tower(x), expected(x))


def test_a_group_of_one_value_is_answered_by_the_bias():
    norm = build_tower(8, [32], "GN", 1)[1]
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(1, 32, 1, 1, requires_grad=True)
    out = norm(x)
    # x is multiplied by 1 / sqrt(eps) before its mean is taken away, so rounding shows.
    torch.testing.assert_close(out[0, :, 0, 0], norm.bias, rtol=0, atol=1e-3)
    out.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_one_small_picture_goes_through_a_narrow_head(training: bool):
    model = build_model(tiny_cfg(NORM="GN")).train(training)
    features = [torch.randn(1, 32, side, side) for side in (8, 4, 2, 1, 1)]
    logits, deltas = model.head(features)
    assert all(x.isfinite().all() for x in (*logits, *deltas))
