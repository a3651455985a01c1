"""The head: prior, shapes, sharing of weights across levels."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec

from retinanet_ext.modeling import RetinaNetHead

LEVELS = [ShapeSpec(channels=8, stride=s) for s in (8, 16, 32)]


def build(**changes) -> RetinaNetHead:
    arguments = {
        "input_shape": LEVELS,
        "num_classes": 5,
        "num_anchors": 2,
        "conv_dims": [8, 8],
        **changes,
    }
    torch.manual_seed(0)
    return RetinaNetHead(**arguments)


def features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 8, size, size + 1, generator=generator) for size in (8, 4, 2)]


@pytest.mark.parametrize("norm", ["", "GN", "BN", "SyncBN"])
@pytest.mark.parametrize("conv_dims", [[], [8, 8], [16]])
def test_outputs_have_the_promised_shapes(norm: str, conv_dims: list[int]):
    if norm == "GN":
        conv_dims = [dim * 4 for dim in conv_dims]  # Detectron2's GN has 32 groups
    head = build(norm=norm, conv_dims=conv_dims).eval()
    logits, deltas = head(features())
    assert [tuple(x.shape) for x in logits] == [(3, 10, 8, 9), (3, 10, 4, 5), (3, 10, 2, 3)]
    assert [tuple(x.shape) for x in deltas] == [(3, 8, 8, 9), (3, 8, 4, 5), (3, 8, 2, 3)]


@pytest.mark.parametrize("prior", [0.01, 0.5])
def test_fresh_head_gives_every_anchor_the_prior(prior: float):
    logits, _ = build(prior_prob=prior)(features())
    mean = torch.cat([x.sigmoid().flatten() for x in logits]).mean().item()
    assert mean == pytest.approx(prior, rel=1e-2)


def test_subnets_have_one_shape_and_separate_weights():
    head = build()
    ours = [tuple(p.shape) for p in head.cls_subnet.parameters()]
    assert ours == [tuple(p.shape) for p in head.bbox_subnet.parameters()]
    assert not torch.equal(head.cls_subnet[0].weight, head.bbox_subnet[0].weight)


def test_weights_are_shared_across_levels():
    head = build().eval()
    same = [features()[0]] * 3
    logits, deltas = head(same)
    assert torch.equal(logits[0], logits[2]) and torch.equal(deltas[0], deltas[1])


def test_batch_norm_keeps_statistics_per_level():
    head = build(norm="BN").train()
    head([x + 10 * i for i, x in enumerate(features())])
    norms = head.cls_subnet[1]
    means = [bn.running_mean for bn in norms]
    assert len(means) == 3
    assert not torch.allclose(means[0], means[1], atol=1e-3)


def test_nonsense_is_refused_by_name():
    with pytest.raises(ValueError, match="PRIOR_PROB"):
        build(prior_prob=1.0)
    with pytest.raises(ValueError, match="same channels"):
        build(input_shape=[*LEVELS, ShapeSpec(channels=4, stride=64)])
