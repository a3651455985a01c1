"""Settings of evaluation and of the training step that cannot mean what they say."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.config import CfgNode

from retinanet_ext import get_cfg
from retinanet_ext.config import validate_cfg
from retinanet_ext.config.run_rules import check_amp_device, check_parts


def check(*opts: object) -> list[str]:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.DATASETS.TEST = ("coco_2017_val",)
    cfg.merge_from_list([str(x) if isinstance(x, (int, float)) else x for x in opts])
    return validate_cfg(cfg)


EMA = ("SOLVER.EMA.ENABLED", "True")
PERIOD = ("TEST.EVAL_PERIOD", 100)
PATIENCE = ("TEST.EARLY_STOPPING_PATIENCE", 3)
TWO_SETS = ("DATASETS.TEST", ("coco_2017_val", "coco_2017_val_100"))


@pytest.mark.parametrize(
    "opts",
    [
        (),
        (*EMA, "SOLVER.EMA.DECAY", 0.0, "SOLVER.EMA.WARMUP", "False"),
        (*PATIENCE, *PERIOD),
        (*PATIENCE, "TEST.EVAL_EPOCHS", 1, "SOLVER.EPOCHS", 3),
        ("TEST.BEST_METRIC", ""),
        ("INPUT.SIZE_TEST", [300, 200]),
        ("TEST.BEST_METRIC", "ema/bbox/AP", *EMA),
        ("TEST.BEST_METRIC", "val_loss/total", "TEST.VAL_LOSS", "True"),
        TWO_SETS,
        (*TWO_SETS, "TEST.BEST_METRIC", "coco_2017_val/bbox/AP", *PATIENCE, *PERIOD),
    ],
)
def test_what_works_passes(opts):
    assert check(*opts) == []


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ("TEST.EARLY_STOPPING_PATIENCE", -1),
            "PATIENCE must be at least 0, got -1: a number",
        ),
        (PATIENCE, "PATIENCE is 3, but TEST.EVAL_PERIOD is 0"),
        ((*PATIENCE, *PERIOD, "TEST.BEST_METRIC", ""), "PATIENCE is 3, but TEST.BEST_METRIC is ''"),
        ((*PATIENCE, *PERIOD, "DATASETS.TEST", ()), "PATIENCE is 3, but DATASETS.TEST is empty"),
        (("TEST.VAL_LOSS", "True", "DATASETS.TEST", ()), "TEST.VAL_LOSS is True but DATASETS.TEST"),
        (("TEST.BEST_METRIC", "ema/bbox/AP"), "'ema/bbox/AP', but without SOLVER.EMA.ENABLED"),
        (("TEST.BEST_METRIC", "val_loss/cls"), "'val_loss/cls', but without TEST.VAL_LOSS"),
        (
            (*TWO_SETS, "TEST.BEST_METRIC", "bbox/AP50"),
            "with 2 datasets .* set it to 'coco_2017_val/bbox/AP50'",
        ),
        (
            (*TWO_SETS, *EMA, "TEST.BEST_METRIC", "ema/bbox/AP"),
            "set it to 'ema/coco_2017_val/bbox/AP'",
        ),
        ((*TWO_SETS, *PATIENCE, *PERIOD), "set it to 'coco_2017_val/bbox/AP'"),
        (
            (*EMA, "SOLVER.EMA.DECAY", 1.0),
            r"SOLVER.EMA.DECAY must be in \[0, 1\), got 1.0: the",
        ),
        (("SOLVER.EMA.DECAY", 0.99), "SOLVER.EMA.DECAY is 0.99, but without SOLVER.EMA.ENABLED"),
        (("SOLVER.EMA.WARMUP", "False"), "SOLVER.EMA.WARMUP is False, but without"),
        (("INPUT.SIZE_TEST", [300]), r"SIZE_TEST is \[300\]; set it to \[height, width\]"),
        (("INPUT.SIZE_TEST", [300, 0]), r"SIZE_TEST is \[300, 0\]; set it to"),
        (
            ("INPUT.SIZE_TEST", [300, 300], "TEST.AUG.ENABLED", "True"),
            r"SIZE_TEST is \[300, 300\], .* TEST.AUG.ENABLED is True",
        ),
    ],
)
def test_what_cannot_work_is_named_with_the_fix(opts, message):
    with pytest.raises(ValueError, match=message):
        check(*opts)


def config(**keys: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.merge_from_list([x for name, value in keys.items() for x in (name, value)])
    return cfg


def test_defaults_are_detectron2s():
    cfg = config()
    assert validate_cfg(cfg) == []
    assert cfg.SOLVER.ACCUM_STEPS == 1 and cfg.SOLVER.MAX_SKIPPED_BATCHES == 0
    assert cfg.SOLVER.AMP.PRECISION == "float16" and not cfg.SOLVER.AMP.ENABLED


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"SOLVER.ACCUM_STEPS": 0}, "ACCUM_STEPS must be at least 1, got 0"),
        ({"SOLVER.ACCUM_STEPS": 3}, "must be a multiple of 3"),
        (
            {
                "SOLVER.ACCUM_STEPS": 2,
                "MODEL.SPEEDUPS.COMPILE": True,
                "MODEL.SPEEDUPS.COMPILE_MODE": "reduce-overhead",
            },
            "cannot add up the gradients of SOLVER.ACCUM_STEPS 2",
        ),
        ({"SOLVER.MAX_SKIPPED_BATCHES": -1}, "MAX_SKIPPED_BATCHES must be at least 0, got -1"),
        ({"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.PRECISION": "bfloat"}, "Did you mean 'bfloat16'"),
        ({"SOLVER.AMP.PRECISION": "bfloat16"}, "set SOLVER.AMP.ENABLED True"),
        ({"SOLVER.AMP.ENABLED": True, "MODEL.SPEEDUPS.AUTOCAST": "bfloat16"}, "AUTOCAST to ''"),
    ],
)
def test_impossible_values_are_refused_by_their_key(keys: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        validate_cfg(config(**keys))


def test_parts_are_counted_in_each_process():
    cfg = config(**{"SOLVER.IMS_PER_BATCH": 16, "SOLVER.ACCUM_STEPS": 4})
    check_parts(cfg, 4)
    with pytest.raises(ValueError, match=r"16 over 8 process.* multiple of 32"):
        check_parts(cfg, 8)
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 4  # Detectron2 will scale the batch to 8 processes
    check_parts(cfg, 8)


def test_mixed_precision_on_the_cpu_is_bfloat16():
    cfg = config(**{"SOLVER.AMP.ENABLED": True})
    check_amp_device(cfg, "cuda")
    with pytest.raises(ValueError, match=r"set SOLVER\.AMP\.PRECISION bfloat16"):
        check_amp_device(cfg, "cpu")
    cfg.SOLVER.AMP.PRECISION = "bfloat16"
    check_amp_device(cfg, "cpu")
    with pytest.raises(ValueError, match="runs on 'mps'"):
        check_amp_device(cfg, "mps")
