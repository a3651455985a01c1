"""Candidates are what a look at every score finds, in any layout."""

from __future__ import annotations

import math

import pytest
import torch

from retinanet_ext.modeling.postprocess import candidates
from retinanet_ext.modeling.postprocess.candidates import (
    score_threshold_to_logit,
    select_at_once,
    select_candidates,
)

K = 3


@pytest.fixture(params=["in a copy", "by level"], autouse=True)
def way(request, monkeypatch) -> str:
    """Both ways to find large logits on a CPU, whatever their number."""
    monkeypatch.setattr(candidates, "SMALL", 2**60 if request.param == "in a copy" else 0)
    return request.param


@pytest.fixture
def only_by_level(way: str) -> None:
    if way != "by level":
        pytest.skip("a copy is made on purpose")


def random_logits(
    num_images: int = 2, num_anchors: int = 2, num_classes: int = K
) -> list[torch.Tensor]:
    """Three levels: many blocks and a rest, about one block, less than a block."""
    return [
        torch.randn(num_images, num_anchors * num_classes, height, width) * 2 - 2
        for height, width in ((31, 33), (4, 5), (1, 2))
    ]


def dense_scores(level: torch.Tensor, num_classes: int = K) -> torch.Tensor:
    """(N, A*K, H, W) to scores (N, H*W*A, K), the long way."""
    by_class = level.unflatten(1, (-1, num_classes)).permute(0, 3, 4, 1, 2)
    return by_class.reshape(len(level), -1, num_classes).float().sigmoid()


def expected_scores(logits, thresh: float, topk: int, num_classes: int = K) -> torch.Tensor:
    per_image = []
    for image in range(len(logits[0])):
        for level in logits:
            scores = dense_scores(level, num_classes)[image]
            per_image.append(scores[scores > thresh].sort(descending=True).values[:topk])
    return torch.cat(per_image)


def assert_points_at_its_scores(found, logits, num_classes: int = K) -> None:
    dense = torch.cat([dense_scores(level, num_classes) for level in logits], dim=1)
    values = dense[found.image_indices, found.anchor_indices, found.classes]
    torch.testing.assert_close(values, found.scores)


@pytest.mark.parametrize("thresh", [0.0, 0.05, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("topk", [1, 7, 1000, 100_000])
def test_candidates_are_the_best_scores_above_the_threshold(thresh: float, topk: int):
    logits = random_logits()
    found = select_candidates(logits, K, thresh, topk)
    torch.testing.assert_close(found.scores, expected_scores(logits, thresh, topk))
    assert_points_at_its_scores(found, logits)


@pytest.mark.parametrize(("num_anchors", "num_classes"), [(9, 1), (1, 80), (1, 1)])
def test_any_number_of_anchors_and_classes(num_anchors: int, num_classes: int):
    logits = random_logits(3, num_anchors, num_classes)
    found = select_candidates(logits, num_classes, 0.3, 50)
    torch.testing.assert_close(found.scores, expected_scores(logits, 0.3, 50, num_classes))
    assert_points_at_its_scores(found, logits, num_classes)


def assert_same(found, expected) -> None:
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("topk", [5, 1000])
def test_memory_format_changes_nothing(topk: int):
    logits = random_logits()
    expected = select_candidates(logits, K, 0.2, topk)
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in logits]
    strided = [torch.cat([x, x], dim=3)[..., : x.shape[3]] for x in logits]
    for changed in (channels_last, strided):
        assert not changed[0].is_contiguous()
        assert_same(select_candidates(changed, K, 0.2, topk), expected)


def test_channels_last_is_read_in_place(monkeypatch, only_by_level):
    logits = [random_logits()[0].contiguous(memory_format=torch.channels_last)]
    copies = []
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda x, **_: copies.append(x))
    address = logits[0].data_ptr()
    flatten = torch.Tensor.flatten

    def spy(x, *arguments):
        result = flatten(x, *arguments)
        assert result.data_ptr() == address
        return result

    monkeypatch.setattr(torch.Tensor, "flatten", spy)
    assert len(select_candidates(logits, K, 0.2, 5).scores) == 10
    assert copies == []


@pytest.mark.parametrize("topk", [5, 1000])
def test_a_batch_is_its_images_one_by_one(topk: int):
    logits = random_logits(num_images=4)
    logits[0][2] += 5  # far more candidates than the others
    logits[0][3] -= 50  # none
    found = select_candidates(logits, K, 0.1, topk)
    singles = [select_candidates([x[i : i + 1] for x in logits], K, 0.1, topk) for i in range(4)]
    for i, single in enumerate(singles):
        chosen = found.image_indices == i
        assert single.image_indices.eq(0).all()
        # PyTorch's sigmoid rounds the last few of a tensor in another way.
        torch.testing.assert_close(found.scores[chosen], single.scores, rtol=1e-6, atol=0)
        assert torch.equal(found.anchor_indices[chosen], single.anchor_indices)
        assert torch.equal(found.classes[chosen], single.classes)
    assert found.image_indices.diff().ge(0).all()


@pytest.mark.parametrize("topk", [3, 1000])
def test_nan_never_passes_and_hides_nothing(topk: int):
    logits = random_logits()
    # More blocks than topk hold a NaN; the large values beside them are the only candidates.
    for level in logits:
        level.fill_(-50.0)
    logits[0].view(2, -1)[:, ::50] = math.nan
    logits[0].view(2, -1)[:, 1::50] = torch.rand(2, 123)
    found = select_candidates(logits, K, 0.05, topk)
    torch.testing.assert_close(found.scores, expected_scores(logits, 0.05, topk))
    assert len(found.scores) == 2 * min(topk, 123)


@pytest.mark.parametrize("large", [1e6, math.inf])
def test_huge_logits_pass(large: float):
    logits = random_logits()
    logits[0].view(2, -1)[:, ::40] = large
    found = select_candidates(logits, K, 0.05, 10)
    torch.testing.assert_close(found.scores, expected_scores(logits, 0.05, 10))
    assert (found.scores == 1).sum() == 2 * 10
    logits[0].fill_(-math.inf)
    assert len(select_candidates(logits[:1], K, 0.0, 10).scores) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("topk", [5, 1000])
def test_any_precision(dtype: torch.dtype, topk: int):
    logits = [x.to(dtype) for x in random_logits()]
    # In bfloat16, the threshold's logit would be rounded up to this value, whose score is above.
    thresh = 0.051
    logits[0][0, 0, 0, 0] = score_threshold_to_logit(thresh) + 0.002
    assert logits[0][0, 0, 0, 0].double().sigmoid() > thresh
    found = select_candidates(logits, K, thresh, topk)
    assert found.scores.dtype == (dtype if dtype == torch.float64 else torch.float32)
    expected = expected_scores(logits, thresh, topk)
    torch.testing.assert_close(found.scores.float(), expected, rtol=1e-6, atol=0)


def test_equal_scores_come_in_the_order_of_anchors_and_classes_as_topk_takes_them():
    logits = [(x * 2).round() / 2 for x in random_logits(num_images=1)]
    found = select_candidates(logits[1:2], K, 0.05, 1000)
    scores = dense_scores(logits[1])[0].flatten()
    passed = (scores > 0.05).nonzero().squeeze(1)  # Detectron2's order
    order = passed[scores[passed].topk(len(passed)).indices]
    assert (found.anchor_indices * K + found.classes).tolist() == order.tolist()
    assert len(scores.unique()) < len(scores) / 2


def test_many_candidates_are_cut_to_a_few_blocks(monkeypatch, only_by_level):
    # Without it, a threshold of 0 would sort every logit of the level.
    logits = [torch.randn(1, 2 * K, 64, 64)]
    expected = expected_scores(logits, 0.0, 20)
    sizes, sort = [], torch.Tensor.sort
    monkeypatch.setattr(torch.Tensor, "sort", lambda x: sizes.append(len(x)) or sort(x))
    found = select_candidates(logits, K, 0.0, 20)
    torch.testing.assert_close(found.scores, expected)
    assert len(sizes) == 1 and sizes[0] <= 20 * 64 < logits[0].numel()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_levels_may_differ_in_their_number_of_anchors(memory_format):
    generator = torch.Generator().manual_seed(0)
    shapes = ((3 * 4, 5, 6), (1 * 4, 3, 3), (2 * 4, 2, 1))
    logits = [torch.randn(2, *shape, generator=generator) for shape in shapes]
    rows = [x.permute(0, 2, 3, 1).reshape(2, -1, 4) for x in logits]
    dense = torch.cat(rows, dim=1).sigmoid()  # (N, R, K)
    found = select_candidates(
        [x.contiguous(memory_format=memory_format) for x in logits], 4, 0.5, topk=1000
    )
    expected = {tuple(entry) for entry in (dense > 0.5).nonzero().tolist()}
    indices = (found.image_indices, found.anchor_indices, found.classes)
    got = set(zip(*(x.tolist() for x in indices), strict=True))
    assert got == expected and len(found.scores) == len(expected)
    torch.testing.assert_close(found.scores, dense[indices])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("topk", [1, 7, 100_000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_all_levels_at_once_give_the_same_candidates(dtype, topk: int, memory_format):
    logits = [x + torch.rand(x.shape, dtype=torch.float64) * 1e-6 for x in random_logits(3)]
    logits = [x.to(dtype, memory_format=memory_format) for x in logits]
    logits[0][0, 0, 0, 0] = math.nan
    logits[1][1] = -9.0  # a level without any
    expected = select_candidates(logits, K, 0.05, topk)
    found = select_at_once(logits, K, 0.05, topk)
    torch.testing.assert_close(found.scores, expected.scores)
    assert_points_at_its_scores(found._replace(scores=found.scores.float()), logits)
    if dtype == torch.float64:  # no equal scores
        for got, wanted in zip(found[1:], expected[1:], strict=True):
            assert torch.equal(got, wanted)


def test_all_levels_at_once_may_find_nothing():
    logits = [torch.full_like(x, -9.0) for x in random_logits()]
    assert [len(x) for x in select_at_once(logits, K, 0.05, 10)] == [0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("topk", [3, 50, 1000])
def test_a_copy_finds_the_same_in_the_same_order(monkeypatch, topk: int, memory_format, dtype):
    logits = [x.to(dtype, memory_format=memory_format) for x in random_logits(3)]
    logits[0][0, 0, 0, 0] = math.nan
    logits[1][1] = -9.0
    found = []
    for small in (0, 2**60):
        monkeypatch.setattr(candidates, "SMALL", small)
        found.append(select_candidates(logits, K, 0.05, topk))
    torch.testing.assert_close(found[0].scores, found[1].scores)
    if dtype == torch.float32:  # no equal scores
        assert_same(found[0][1:], found[1][1:])
