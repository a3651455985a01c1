"""Under the autocast of a training step, only the network computes in half precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from tests.helpers.steps import make_batch, make_cfg


@pytest.mark.parametrize("fused", [False, True])
def test_losses_and_boxes_leave_the_callers_autocast(tmp_path: Path, fused: bool):
    cfg = make_cfg(tmp_path)
    cfg.MODEL.RETINANET.LOSS_NORMALIZER = "positives"  # the same in both passes
    cfg.MODEL.RETINANET.FUSED_CLS_LOSS_MIN_CLASSES = 0 if fused else -1
    torch.manual_seed(0)
    model = build_model(cfg)
    batch, seen = make_batch(1), {}

    def note(name: str) -> None:
        seen[name] = torch.is_autocast_enabled("cpu")

    assign = model.assigner
    model.assigner = lambda *args: note("assigner") or assign(*args)
    model.box_loss.register_forward_pre_hook(lambda *_: note("loss"))
    model.head.bbox_pred.register_forward_pre_hook(lambda *_: note("head"))
    with EventStorage():
        expected = model(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = model(batch)
    assert seen == {"assigner": False, "loss": False, "head": True}
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.05)
    sum(losses.values()).backward()
    assert all(x.grad.dtype == torch.float32 for x in model.parameters() if x.grad is not None)


def test_detections_leave_the_callers_autocast(tmp_path: Path):
    torch.manual_seed(0)
    model = build_model(make_cfg(tmp_path)).eval()
    decode, seen = model.decoder, []
    model.decoder = lambda *args: seen.append(torch.is_autocast_enabled("cpu")) or decode(*args)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        (output,) = model(make_batch(1, images=1))
    assert seen == [False] and output["instances"].scores.dtype == torch.float32
