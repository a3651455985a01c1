"""Losses, labelling and decoding: measured after the numbers agree, and only then."""

from __future__ import annotations

import pytest
import torch

from retinanet_ext.benchmark import Benchmark, Disagreement, runner
from retinanet_ext.benchmark.measure import Peak
from retinanet_ext.benchmark.peers import DETECTRON2
from retinanet_ext.benchmark.tasks import components
from retinanet_ext.benchmark.tasks.components import HeadCase, run_decode, run_labelling, run_loss
from retinanet_ext.losses import sigmoid_focal_loss
from retinanet_ext.modeling.assigners.iou import IoUAssigner
from retinanet_ext.modeling.criteria.classification import FocalLoss
from retinanet_ext.modeling.postprocess.decode import DenseDecoder

ORDERS: list[tuple] = []


@pytest.fixture
def bench(settings, monkeypatch) -> Benchmark:
    """One whose memory measurements are only noted in ORDERS."""
    ORDERS.clear()
    monkeypatch.setattr(
        runner, "measure_in_own_process", lambda *order: ORDERS.append(order) or Peak(100, "m")
    )
    return Benchmark(settings)


def test_loss_rows_give_time_and_memory_in_multiples_of_the_logits(bench, settings):
    run_loss(bench)
    time, memory = bench.rows
    assert (time.kind, memory.kind) == ("time", "memory")
    # Strides 8 to 128 of 64 x 96 pixels, 9 anchors, 3 classes, 2 images, 4 bytes.
    num_anchors = 9 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1)
    assert memory.logits_bytes == 4 * 2 * 3 * num_anchors
    assert [order[:2] for order in ORDERS] == [("loss", DETECTRON2), ("loss", "retinanet_ext")]
    found = bench.agreement["loss"]
    assert set(found) == {"losses, relative", "gradients, of the largest entry"}


def test_both_losses_take_part(settings):
    losses, gradients = components.loss_work(settings, DETECTRON2)()
    assert set(losses) == {"loss_cls", "loss_box_reg"} and all(x > 0 for x in losses.values())
    assert all(x.abs().max() > 0 for name, x in gradients.items() if name.startswith("logits"))
    assert sum(x.abs().sum() for name, x in gradients.items() if name.startswith("deltas")) > 0


def test_a_wrong_loss_is_not_measured(bench, monkeypatch):
    monkeypatch.setattr(
        FocalLoss,
        "forward",
        lambda self, logits, targets: (
            1.001 * sigmoid_focal_loss(logits, targets.labels, targets.num_classes)
        ),
    )
    with pytest.raises(Disagreement, match=r"loss: loss_cls differs by 0\.001"):
        run_loss(bench)
    assert bench.rows == []


def test_labelling_is_timed_with_few_boxes_and_its_memory_read_with_many(bench):
    run_labelling(bench)
    time, memory = bench.rows
    assert "4 gt" in time.what and "1,000 gt" in memory.what
    assert {order[2].num_gt for order in ORDERS} == {1000}


def test_a_wrong_label_is_not_measured(bench, monkeypatch):
    assign = IoUAssigner.__call__

    def wrong(self, anchors, gt_instances):
        targets = assign(self, anchors, gt_instances)
        targets.labels[0, 0] = 0 if targets.labels[0, 0] else 1
        return targets

    monkeypatch.setattr(IoUAssigner, "__call__", wrong)
    with pytest.raises(Disagreement, match="labelling: labels differs by 1"):
        run_labelling(bench)
    assert bench.rows == []


def test_decode_says_how_many_scores_pass(bench, settings):
    run_decode(bench)
    (row,) = bench.rows
    assert "scores above 0.05" in row.note and not row.note.startswith("0 ")
    assert ORDERS == []


def test_a_wrong_detection_is_not_measured(bench, monkeypatch):
    decode = DenseDecoder.__call__

    def wrong(self, *args):
        found = decode(self, *args)
        found[0].pred_boxes.tensor[0] += 1
        return found

    monkeypatch.setattr(DenseDecoder, "__call__", wrong)
    with pytest.raises(Disagreement, match=r"decode, detections of image 0: .* and 1 of"):
        run_decode(bench)


def test_decoding_again_gives_the_same(bench, monkeypatch):
    """Detectron2 writes scores over the logits of the coarsest level here, of 1 x 1 locations."""
    works = {}
    monkeypatch.setattr(bench, "time", lambda task, what, w, **_: works.update(w))
    run_decode(bench)
    first, second = works[DETECTRON2](), works[DETECTRON2]()
    assert torch.equal(first[0].scores, second[0].scores)


def test_outputs_have_the_memory_format_of_each_sides_head(settings):
    """Ours is channels_last on a CPU by default; the numbers are the same."""
    ours, theirs = (HeadCase.build(settings, s, 2) for s in ("retinanet_ext", DETECTRON2))
    pairs = zip(ours.outputs(settings), theirs.outputs(settings), strict=True)
    for mine, other in pairs:
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
        assert all(x.is_contiguous() for x in other)
    features = [torch.randn(2, 32, *x.shape[-2:]) for x in ours.features]
    with torch.no_grad():
        real = ours.model.head(features)
    for mine, head in zip(ours.outputs(settings), real, strict=True):
        assert [x.stride() for x in mine] == [x.stride() for x in head]
