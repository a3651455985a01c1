"""Settings of evaluation in training that cannot mean what they say."""

from __future__ import annotations

import pytest

from retinanet_ext import get_cfg
from retinanet_ext.config import validate_cfg


def check(*opts: object) -> None:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.DATASETS.TEST = ("coco_2017_val",)
    cfg.merge_from_list([str(x) if isinstance(x, (int, float)) else x for x in opts])
    validate_cfg(cfg)


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
        ("TEST.BEST_METRIC", "ema/bbox/AP", *EMA),
        ("TEST.BEST_METRIC", "val_loss/total", "TEST.VAL_LOSS", "True"),
        TWO_SETS,
        (*TWO_SETS, "TEST.BEST_METRIC", "coco_2017_val/bbox/AP", *PATIENCE, *PERIOD),
    ],
)
def test_what_works_passes(opts):
    check(*opts)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("TEST.EARLY_STOPPING_PATIENCE", -1), "PATIENCE is -1; set it to a number"),
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
        ((*EMA, "SOLVER.EMA.DECAY", 1.0), r"SOLVER.EMA.DECAY is 1.0; .* \[0, 1\)"),
        (("SOLVER.EMA.DECAY", 0.99), "SOLVER.EMA.DECAY is 0.99, but without SOLVER.EMA.ENABLED"),
        (("SOLVER.EMA.WARMUP", "False"), "SOLVER.EMA.WARMUP is False, but without"),
    ],
)
def test_what_cannot_work_is_named_with_the_way_out(opts, message):
    with pytest.raises(ValueError, match=message):
        check(*opts)
