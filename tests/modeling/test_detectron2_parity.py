"""RetinaNetExt is a drop-in for Detectron2's RetinaNet: weights, losses, gradients, detections."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from retinanet_ext import get_cfg
from tests.helpers.parity import (
    ZOO,
    assert_equal_models,
    assert_same_detections,
    assert_same_losses,
    assert_same_training,
    build_pair,
    losses_and_gradients,
    make_batch,
    small_cfg,
)

NORMALIZER = "loss_normalizer.mean"


def zoo_yamls() -> list[Path]:
    return sorted(ZOO.glob("*/retinanet_*.yaml"))


@functools.cache
def check_equal_models(settings: str) -> None:
    """:func:`assert_equal_models`, once for several files with the same settings (yaml)."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode.load_cfg(settings))
    assert_equal_models(cfg)


@pytest.mark.parametrize("path", zoo_yamls(), ids=lambda path: path.stem)
def test_every_zoo_yaml_gives_the_same_numbers(path: Path):
    cfg = small_cfg(path)
    # Four of the files differ only in what no model sees.
    for node in (cfg.SOLVER, cfg.DATASETS, cfg.DATALOADER, cfg.TEST):
        for key in node.keys() - {"DETECTIONS_PER_IMAGE"}:
            del node[key]
    check_equal_models(cfg.dump())


def test_zoo_has_yamls_to_compare_with():
    assert len(zoo_yamls()) >= 3


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_head_norms_give_the_same_numbers(norm: str):
    theirs, ours = build_pair(small_cfg(NORM=norm))
    batch = make_batch(7)
    assert_same_detections(theirs, ours, batch)
    # In float64, since the gradient of a bias before a norm is 0: in float32 mere rounding noise.
    assert_same_training(theirs.double(), ours.double(), batch)


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_box_losses_give_the_same_numbers(kind: str):
    assert_equal_models(small_cfg(BBOX_REG_LOSS_TYPE=kind))


def test_smooth_l1_beta_and_focal_settings_reach_the_losses():
    assert_equal_models(
        small_cfg(SMOOTH_L1_LOSS_BETA=0.11, FOCAL_LOSS_ALPHA=0.6, FOCAL_LOSS_GAMMA=1.5)
    )


def test_running_normalizer_follows_detectron2_over_steps():
    cfg = small_cfg()
    theirs, ours = build_pair(cfg)
    assert_same_losses(theirs, ours, make_batch(7), steps=4)
    assert ours.loss_normalizer.mean.item() == pytest.approx(theirs.loss_normalizer, rel=1e-6)


def test_batch_without_any_object_gives_the_same_losses():
    theirs, ours = build_pair(small_cfg())
    batch = make_batch(7)[1:2]
    expected, _ = losses_and_gradients(theirs, batch)
    losses, gradients = losses_and_gradients(ours, batch)
    torch.testing.assert_close(losses["loss_cls"], expected["loss_cls"], rtol=1e-5, atol=0)
    assert losses["loss_box_reg"] == 0
    # Every parameter takes part, or DistributedDataParallel would wait forever.
    trainable = {k for k, p in ours.named_parameters() if p.requires_grad}
    assert gradients.keys() == trainable


def test_state_dicts_load_both_ways():
    theirs, ours = build_pair(small_cfg(NORM="BN"))
    result = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert result.missing_keys == [] and result.unexpected_keys == []
    back = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert back.missing_keys == [] and back.unexpected_keys == [NORMALIZER]


def test_checkpointer_loads_detectron2_weights_without_a_complaint(tmp_path: Path, caplog):
    theirs, ours = build_pair(small_cfg())
    DetectionCheckpointer(theirs, str(tmp_path)).save("theirs")
    with torch.no_grad():
        ours.head.cls_score.weight.zero_()
    caplog.clear()
    DetectionCheckpointer(ours).load(str(tmp_path / "theirs.pth"))
    assert [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []
    assert torch.equal(ours.head.cls_score.weight, theirs.head.cls_score.weight)


def test_normalizer_is_saved_and_restored():
    cfg = small_cfg()
    _, ours = build_pair(cfg)
    losses_and_gradients(ours, make_batch(7), steps=2)
    other = build_model(cfg)
    other.load_state_dict(ours.state_dict())
    assert other.loss_normalizer.mean == ours.loss_normalizer.mean != 100.0
