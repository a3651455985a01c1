"""A dry run touches every part of a run and leaves nothing behind."""

import logging
import math
from pathlib import Path

import pytest

from retinanet_ext.engine import dry_run as dry_run_module
from retinanet_ext.engine.dry_run import dry_run
from retinanet_ext.engine.trainer import RetinaNetTrainer


def test_everything_runs_once_and_nothing_is_left(cfg, caplog):
    with caplog.at_level(logging.INFO, "retinanet_ext"):
        losses = dry_run(cfg)
    assert set(losses) == {"total_loss", "loss_cls", "loss_box_reg"}
    assert all(math.isfinite(value) for value in losses.values())
    assert not Path(cfg.OUTPUT_DIR).exists()
    text = "\n".join(caplog.messages)
    for words in ("parameters", "(3, 64, 64)", "loss_cls", "evaluated one image", "peak memory"):
        assert words in text


def test_with_resume_the_last_checkpoint_is_loaded_and_left_as_it_is(cfg, caplog):
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST = 2, ()
    RetinaNetTrainer(cfg).train()
    before = {x.name: x.stat().st_mtime_ns for x in Path(cfg.OUTPUT_DIR).iterdir()}
    caplog.clear()
    with caplog.at_level(logging.INFO, "retinanet_ext"):
        dry_run(cfg, resume=True)
    assert f"resumes {cfg.OUTPUT_DIR}/model_final.pth" in caplog.messages
    assert not [x for x in caplog.records if x.levelno >= logging.WARNING]
    assert {x.name: x.stat().st_mtime_ns for x in Path(cfg.OUTPUT_DIR).iterdir()} == before


def test_one_image_is_evaluated(cfg, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        dry_run_module,
        "inference_on_dataset",
        lambda model, loader, evaluator: sizes.append((len(loader), len(list(loader)))),
    )
    dry_run(cfg)
    assert sizes == [(1, 1)]


def test_a_batch_is_cut_on_the_cpu_only(cfg):
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE = 16, 8
    cut = dry_run_module._shrunk(cfg, "folder")
    assert (cut.SOLVER.IMS_PER_BATCH, cut.SOLVER.REFERENCE_WORLD_SIZE) == (2, 0)
    cfg.MODEL.DEVICE = "cuda"
    assert dry_run_module._shrunk(cfg, "folder").SOLVER.IMS_PER_BATCH == 16
    cfg.MODEL.DEVICE, cfg.SOLVER.IMS_PER_BATCH = "cpu", 1
    assert dry_run_module._shrunk(cfg, "folder").SOLVER.IMS_PER_BATCH == 1


def test_it_runs_without_test_datasets(cfg):
    cfg.DATASETS.TEST = ()
    assert dry_run(cfg)


def test_a_loss_that_is_not_finite_stops_it(cfg):
    cfg.MODEL.PIXEL_STD = [0.0, 0.0, 0.0]
    with pytest.raises((FloatingPointError, ValueError)):
        dry_run(cfg)
