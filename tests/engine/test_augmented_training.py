"""Training with several augmentations, from the config to the losses."""

from __future__ import annotations

import math

import pytest
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from retinanet_ext.config import validate_cfg
from retinanet_ext.engine.trainer import RetinaNetTrainer

AUG = [
    {"NAME": "Mosaic", "PROB": 0.7, "SIZE": [64, 96]},
    {"NAME": "RandomRotation90"},
    {"NAME": "MinIoURandomCrop", "PROB": 0.5},
    {"NAME": "LargeScaleJitter", "SIZE": [64, 64], "SCALE": [0.5, 1.5]},
    {"NAME": "RandomFlip"},
    "RandomContrast",
    "RandomLighting",
    "RandomNoise",
    {"NAME": "RandomJPEG", "PROB": 1},
]


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_two_iterations_with_many_augmentations(cfg: CfgNode, on_error: str):
    cfg.INPUT.AUG, cfg.INPUT.AUG_MIN_VISIBLE = AUG, 0.1
    cfg.DATALOADER.ON_ERROR, cfg.DATASETS.TEST = on_error, ()
    cfg.DATALOADER.NUM_WORKERS = 1 if on_error == "fail" else 0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH = 2, 2
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = "BN"  # no weights
    validate_cfg(cfg)
    trainer = RetinaNetTrainer(cfg)
    shapes = []
    trainer.model.register_forward_pre_hook(
        lambda module, args: shapes.extend(tuple(x["image"].shape) for x in args[0])
    )
    with EventStorage(0) as storage:
        for trainer.iter in range(2):
            trainer.run_step()
            assert all(math.isfinite(x[0]) for x in storage.latest().values())
    assert shapes == [(3, 64, 64)] * 4
