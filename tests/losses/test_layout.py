"""How labels line up with logits, for levels with different numbers of anchors, too."""

from __future__ import annotations

import pytest
import torch

from retinanet_ext.losses import sigmoid_focal_loss
from retinanet_ext.losses.layout import level_views, split_levels

K = 3
COUNTS = (3, 1, 2)
SIZES = ((4, 5), (2, 3), (1, 2))


def levels_and_labels() -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, a * K, h, w) for a, (h, w) in zip(COUNTS, SIZES, strict=True)]
    logits = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    num_anchors = sum(a * h * w for a, (h, w) in zip(COUNTS, SIZES, strict=True))
    return logits, torch.randint(-1, K + 1, (2, num_anchors), generator=generator)


def test_each_anchor_meets_its_label():
    logits, labels = levels_and_labels()
    start = 0
    views = level_views(logits, labels, K)
    for (view, view_labels), level, count in zip(views, logits, COUNTS, strict=True):
        height, width = level.shape[2:]
        for y in range(height):
            for x in range(width):
                for a in range(count):
                    entry = start + (y * width + x) * count + a
                    assert torch.equal(view[:, a, :, y, x], level[:, a * K : (a + 1) * K, y, x])
                    assert torch.equal(view_labels[:, a, 0, y, x], labels[:, entry])
        start += height * width * count


@pytest.mark.parametrize("kernel", ["reference", "chunked", "auto"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_loss_is_the_sum_over_the_levels_alone(kernel: str, memory_format):
    logits, labels = levels_and_labels()
    logits = [x.contiguous(memory_format=memory_format).requires_grad_() for x in logits]
    sigmoid_focal_loss(logits, labels, K, kernel=kernel).backward()
    total, start = torch.zeros((), dtype=torch.float64), 0
    for level, count in zip(logits, COUNTS, strict=True):
        rows = level.detach().unflatten(1, (count, K)).permute(0, 3, 4, 1, 2).reshape(2, -1, K)
        rows.requires_grad_()
        y = labels[:, start : start + rows.shape[1]]
        truth = torch.nn.functional.one_hot(y.clamp(min=0), K + 1)[..., :K].double()
        p_t = torch.where(truth == 1, rows.sigmoid(), 1 - rows.sigmoid())
        alpha_t = 0.25 * truth + 0.75 * (1 - truth)
        loss = (-alpha_t * (1 - p_t) ** 2 * p_t.log())[y >= 0].sum()
        (gradient,) = torch.autograd.grad(loss, rows)
        dense = level.grad.unflatten(1, (count, K)).permute(0, 3, 4, 1, 2).reshape(2, -1, K)
        torch.testing.assert_close(dense, gradient)
        total, start = total + loss.detach(), start + rows.shape[1]
    got = sigmoid_focal_loss(logits, labels, K, kernel=kernel)
    torch.testing.assert_close(got.detach(), total)


def test_labels_of_another_pyramid_are_refused():
    logits, labels = levels_and_labels()
    with pytest.raises(ValueError, match=r"labels must be \(2, 70\).*got \(2, 69\)"):
        split_levels(logits, labels[:, 1:], K)
    with pytest.raises(ValueError, match=r"must be \(N, A\*4, Hi, Wi\)"):
        split_levels(logits, labels, 4)
