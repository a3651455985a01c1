"""Hard example mining against loops in plain Python."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet_ext.losses import anchor_cross_entropy, hardest_anchors, hardest_at_ratio, sampling

K = 3


def scene(num_anchors: int = 120, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, labels with every kind of label, and anchors that overlap a lot."""
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(num_anchors, generator=generator)
    labels = torch.randint(-1, 10, (num_anchors,), generator=generator).clamp(max=K)
    corner = torch.rand(num_anchors, 2, generator=generator) * 40
    size = torch.rand(num_anchors, 2, generator=generator) * 20 + 10
    return losses, labels, torch.cat([corner, corner + size], dim=1)


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return overlap / (areas - overlap)


def naive_ranking(
    losses: Tensor, labels: Tensor, anchors: Tensor, nms_thresh: float, positives_first: bool
) -> list[int]:
    values, boxes = losses.tolist(), anchors.double().tolist()
    valid = [i for i, label in enumerate(labels.tolist()) if label >= 0]
    kept: list[int] = []
    for i in sorted(valid, key=lambda i: (positives_first and labels[i].item() == K, -values[i])):
        if nms_thresh >= 1 or all(iou(boxes[i], boxes[j]) <= nms_thresh for j in kept):
            kept.append(i)
    return kept


def chosen(mask: Tensor) -> list[int]:
    assert mask.dtype == torch.bool
    return mask.nonzero().squeeze(1).tolist()


@pytest.fixture(params=[4, 4096])
def few_candidates(request, monkeypatch):
    """NMS in growing parts, and in one."""
    monkeypatch.setattr(sampling, "FIRST_CANDIDATES", request.param)


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize("nms_thresh", [0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("batch_size", [1, 16, 1000])
def test_hardest_anchors_equal_a_loop(nms_thresh: float, batch_size: int):
    losses, labels, anchors = scene()
    ranking = naive_ranking(losses, labels, anchors, nms_thresh, positives_first=False)
    got = hardest_anchors(losses, labels, batch_size, anchors, nms_thresh)
    assert chosen(got) == sorted(ranking[:batch_size])


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize("nms_thresh", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("batch_size", [0, 2, 20, 1000])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_hardest_at_ratio_equal_a_loop(nms_thresh: float, batch_size: int, ratio: float):
    losses, labels, anchors = scene(seed=1)
    ranking = naive_ranking(losses, labels, anchors, nms_thresh, positives_first=True)
    positives = [i for i in ranking if labels[i] < K]
    negatives = [i for i in ranking if labels[i] == K]
    if batch_size:
        positives = positives[: max(1, int(batch_size / (1 + ratio)))]
    negatives = negatives[: max(2, int(ratio * len(positives)))]
    got = hardest_at_ratio(losses, labels, K, ratio, batch_size, 2, anchors, nms_thresh)
    assert chosen(got) == sorted(positives + negatives)


def test_ssd_takes_all_positives_and_three_negatives_for_each():
    losses, labels, _ = scene()
    labels[8:][labels[8:] >= 0] = K
    mask = hardest_at_ratio(losses, labels, K)
    is_positive = (labels >= 0) & (labels < K)
    assert is_positive.any() and mask[is_positive].all()
    assert mask[labels == K].sum() == 3 * is_positive.sum()
    assert not mask[labels < 0].any()
    assert losses[(labels == K) & mask].min() >= losses[(labels == K) & ~mask].max()


def test_an_easy_positive_suppresses_a_hard_negative_and_not_the_reverse():
    losses = torch.tensor([0.9, 0.1, 0.2])
    labels = torch.tensor([K, 0, K])
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    mask = hardest_at_ratio(losses, labels, K, anchors=anchors, nms_thresh=0.5)
    assert chosen(mask) == [1, 2]


@pytest.mark.usefixtures("few_candidates")
def test_positives_without_negatives_are_all_found():
    losses, labels, anchors = scene()
    labels.fill_(0)
    mask = hardest_at_ratio(losses, labels, K, 0.0, 0, 0, anchors, 0.5)
    expected = naive_ranking(losses, labels, anchors, 0.5, positives_first=True)
    assert chosen(mask) == sorted(expected)


def test_an_image_without_objects_gives_its_hardest_negatives():
    losses = torch.tensor([0.1, 0.9, 0.5, 0.7])
    labels = torch.tensor([K, K, K, -1])
    assert chosen(hardest_at_ratio(losses, labels, K, min_negatives=2)) == [1, 2]
    assert chosen(hardest_at_ratio(losses, labels, K, min_negatives=0)) == []


def test_suppression_keeps_the_harder_of_two_equal_anchors():
    losses = torch.tensor([0.2, 0.9, 0.1])
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 30]])
    mask = hardest_anchors(losses, torch.full((3,), K), 2, anchors, 0.5)
    assert chosen(mask) == [1, 2]


@pytest.mark.parametrize("labels", [torch.full((5,), -1), torch.empty(0, dtype=torch.long)])
def test_nothing_to_choose_from(labels: Tensor):
    losses, anchors = torch.zeros(len(labels)), torch.zeros(len(labels), 4)
    assert chosen(hardest_anchors(losses, labels, 4, anchors, 0.5)) == []
    assert chosen(hardest_at_ratio(losses, labels, K, anchors=anchors, nms_thresh=0.5)) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_size": -1}, "batch_size must be >= 0, got -1"),
        ({"nms_thresh": 0.0}, "nms_thresh must be in"),
        ({"nms_thresh": 1.5}, "nms_thresh must be in"),
        ({"neg_pos_ratio": -1.0}, "neg_pos_ratio must be >= 0"),
        ({"min_negatives": -1}, "min_negatives must be >= 0"),
        ({"nms_thresh": 0.5}, "NMS at 0.5 needs the anchors"),
    ],
)
def test_bad_arguments_are_refused(keys: dict, message: str):
    losses, labels, _ = scene()
    with pytest.raises(ValueError, match=message):
        hardest_at_ratio(losses, labels, K, **keys)


def test_a_batch_of_none_is_refused():
    losses, labels, _ = scene()
    with pytest.raises(ValueError, match="batch_size must be > 0"):
        hardest_anchors(losses, labels, 0)


def test_cross_entropy_of_an_anchor_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    shapes, num_anchors = ((2, 3), (1, 2)), 2
    logits = [torch.randn(2, num_anchors * K, h, w, generator=generator) * 9 for h, w in shapes]
    labels = torch.randint(-1, K + 1, (2, 16), generator=generator)
    got = anchor_cross_entropy(logits, labels, K)
    for image in range(2):
        rows = [  # anchors of a level in the order (H, W, A)
            level[image].double().view(num_anchors, K, h, w)[a, :, i, j]
            for level, (h, w) in zip(logits, shapes, strict=True)
            for i in range(h)
            for j in range(w)
            for a in range(num_anchors)
        ]
        for row, label, loss in zip(rows, labels[image], got[image], strict=True):
            target = (torch.arange(K) == label).double()
            expected = F.binary_cross_entropy(row.sigmoid(), target, reduction="sum")
            assert loss.item() == pytest.approx(0 if label < 0 else expected.item(), rel=1e-4)
