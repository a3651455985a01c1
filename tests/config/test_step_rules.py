"""The keys of a training step: what is refused, by its name and with a way out."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.config import CfgNode

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.config.step_rules import check_amp_device, check_parts


def config(**keys: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.merge_from_list([x for name, value in keys.items() for x in (name, value)])
    return cfg


def test_defaults_are_detectron2s():
    cfg = config()
    validate_cfg(cfg)
    assert cfg.SOLVER.ACCUM_STEPS == 1 and cfg.SOLVER.MAX_SKIPPED_BATCHES == 0
    assert cfg.SOLVER.AMP.PRECISION == "float16" and not cfg.SOLVER.AMP.ENABLED


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"SOLVER.ACCUM_STEPS": 0}, "ACCUM_STEPS must be at least 1, got 0"),
        ({"SOLVER.ACCUM_STEPS": 3}, "must be a multiple of 3"),
        ({"SOLVER.MAX_SKIPPED_BATCHES": -1}, "MAX_SKIPPED_BATCHES is -1"),
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
