"""What the losses are divided by: each kind, in one process and in several."""

from __future__ import annotations

import math

import pytest
from detectron2.utils import comm
from torch import distributed as dist

from retinanet_ext import get_cfg
from retinanet_ext.modeling import LossNormalizer, build_loss_normalizer
from retinanet_ext.modeling.criteria.normalizer import NORMALIZERS


def build(kind: str, value: float = 100.0) -> LossNormalizer:
    cfg = get_cfg()
    cfg.MODEL.RETINANET.LOSS_NORMALIZER = kind
    cfg.MODEL.RETINANET.LOSS_NORMALIZER_VALUE = value
    return build_loss_normalizer(cfg)


def test_running_mean_by_hand():
    # 0.9 * 100 + 0.1 * 20 = 92, then 0.9 * 92 + 0.1 * 2 = 83
    normalizer = LossNormalizer()
    assert normalizer(20).item() == pytest.approx(92.0)
    assert normalizer(2).item() == pytest.approx(83.0)


def test_no_positive_counts_as_one():
    normalizer = LossNormalizer(momentum=0.0)
    assert normalizer(0).item() == 1.0


def test_evaluation_mode_leaves_it_alone():
    normalizer = LossNormalizer().eval()
    assert normalizer(20).item() == 100.0
    assert normalizer.mean.item() == 100.0


def test_checkpoint_without_it_loads_strictly_and_keeps_the_value():
    normalizer = LossNormalizer()
    normalizer(20)
    normalizer.load_state_dict({}, strict=True)
    assert normalizer.mean.item() == pytest.approx(92.0)


def test_state_is_restored():
    normalizer, other = LossNormalizer(), LossNormalizer()
    normalizer(20)
    other.load_state_dict(normalizer.state_dict())
    assert other(2).item() == pytest.approx(83.0)


def test_momentum_out_of_range_is_refused():
    with pytest.raises(ValueError, match="momentum"):
        LossNormalizer(momentum=1.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    # 0.9 * 100 + 0.1 * 20 = 92
    [("running_mean", 92.0), ("positives", 20.0), ("anchors", 5000.0), ("constant", 7.5)],
)
def test_each_kind_gives_its_number(kind: str, expected: float):
    normalizer = build(kind, value=7.5)
    assert normalizer(20, 5000).item() == pytest.approx(expected)
    assert set(normalizer.state_dict()) == {"mean"}
    if kind != "running_mean":
        assert normalizer.mean.item() == 100.0


def test_default_is_the_running_mean():
    assert build_loss_normalizer(get_cfg()).kind == LossNormalizer().kind == "running_mean"


def test_positives_are_at_least_one():
    assert build("positives")(0).item() == 1.0
    assert build("positives").eval()(0).item() == 1.0


@pytest.mark.parametrize(
    ("kind", "expected"),
    # 4 processes, the other three with 30 anchors together: (20 + 30) / 4 and (5000 + 30) / 4, the
    # mean 0.9 * 100 + 0.1 * 50 = 95; the constant is that of the whole batch.
    [("running_mean", 95 / 4), ("positives", 12.5), ("anchors", 1257.5), ("constant", 25.0)],
)
def test_counts_all_processes_and_gives_the_share_of_one(monkeypatch, kind, expected):
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "all_reduce", lambda total: total.add_(30))
    assert build(kind)(20, 5000).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", NORMALIZERS)
def test_evaluation_mode_waits_for_no_other_process(monkeypatch, kind: str):
    def refuse(total):
        raise AssertionError("all_reduce in evaluation mode")

    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", refuse)
    expected = {"positives": 20.0, "anchors": 5000.0}.get(kind, 50.0)
    assert build(kind).eval()(20, 5000).item() == expected


def test_anchors_without_their_number_are_refused():
    with pytest.raises(ValueError, match="num_anchors"):
        build("anchors")(20)


def test_unknown_kind_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"'positive'; .* Did you mean 'positives'"):
        build("positive")


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_value_out_of_range_is_refused_by_its_key(value: float):
    with pytest.raises(ValueError, match="LOSS_NORMALIZER_VALUE must be"):
        build("constant", value=value)


def through(normalizer: LossNormalizer, counts: list[int]) -> tuple[list[float], float]:
    """Provisional numbers of the parts of a step, and the factor that corrects them."""
    with normalizer.accumulate(len(counts)) as step:
        provisional = [normalizer(count, 10 * count).item() for count in counts]
    return provisional, 1.0 if step.factor is None else step.factor.item()


@pytest.mark.parametrize("kind", NORMALIZERS)
def test_a_step_in_parts_divides_by_what_the_whole_batch_does(kind: str):
    whole, parts = build(kind), build(kind)
    for counts in ([5, 0, 30], [0, 0, 0], [7]):  # the running mean moves once per step
        expected = whole(sum(counts), 10 * sum(counts) or 1).item()
        if kind == "anchors" and 0 in counts:
            counts = [sum(counts)] if sum(counts) else [1]
            expected = 10.0 * counts[0]
        provisional, factor = through(parts, counts)
        assert len(set(provisional)) == 1
        assert provisional[0] / factor == pytest.approx(expected)
    assert parts.mean.item() == pytest.approx(whole.mean.item())


def test_a_step_in_parts_that_fails_leaves_the_mean_alone():
    normalizer = LossNormalizer()
    with pytest.raises(KeyError), normalizer.accumulate(2):
        normalizer(20)
        raise KeyError
    assert normalizer.mean.item() == 100.0
    assert normalizer(20).item() == pytest.approx(92.0)
