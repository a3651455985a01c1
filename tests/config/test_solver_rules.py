"""Settings of SOLVER that contradict each other are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from tests.modeling.test_detectron2_parity import ZOO


def cfg_with(*settings):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.merge_from_list(list(settings))
    return cfg


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ("SOLVER.BASE_LR_BATCH", -1),
            "BASE_LR_BATCH must be at least 0, got -1: the number",
        ),
        (
            ("SOLVER.BASE_LR_BATCH", 16, "SOLVER.REFERENCE_WORLD_SIZE", 8),
            "BASE_LR_BATCH is 16 and SOLVER.REFERENCE_WORLD_SIZE is 8.*one of them to 0",
        ),
        (("SOLVER.LAYER_LR_DECAY", 0.0), r"LAYER_LR_DECAY must be in \(0, 1\], got 0.0"),
        (("SOLVER.LAYER_LR_DECAY", 1.5), r"LAYER_LR_DECAY must be in \(0, 1\], got 1.5"),
        (
            (
                *("SOLVER.CLIP_GRADIENTS.ENABLED", True),
                *("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "fullmodel"),
            ),
            "CLIP_TYPE is 'fullmodel'.*one of value, norm, full_model.*Did you mean 'full_model'",
        ),
        (
            ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.0),
            "CLIP_VALUE must be positive, got 0.0",
        ),
        (
            ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.NORM_TYPE", -1.0),
            "NORM_TYPE must be positive, got -1.0",
        ),
        (("DETERMINISTIC", True), "DETERMINISTIC is True but SEED is -1.*set SEED to 0 or more"),
        (
            ("DETERMINISTIC", True, "SEED", 0, "CUDNN_BENCHMARK", True),
            "so is CUDNN_BENCHMARK.*set CUDNN_BENCHMARK False",
        ),
        (("SOLVER.CHECKPOINT_PERIOD", 0), "CHECKPOINT_PERIOD must be positive, got 0"),
    ],
)
def test_stops_and_says_what_to_set(settings, words):
    with pytest.raises((KeyError, ValueError), match=words):
        validate_cfg(cfg_with(*settings))


@pytest.mark.parametrize(
    "settings",
    [
        ("SOLVER.BASE_LR_BATCH", 16),
        ("SOLVER.LAYER_LR_DECAY", 0.75),
        (
            *("SOLVER.CLIP_GRADIENTS.ENABLED", True),
            *("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"),
        ),
        ("DETERMINISTIC", True, "SEED", 0),
    ],
)
def test_passes_what_works(settings):
    assert validate_cfg(cfg_with(*settings)) == []


@pytest.mark.parametrize("schedule", ["WarmupCosineLR", "OneCycleLR", "WarmupStepWithFixedGammaLR"])
def test_steps_that_the_schedule_does_not_read_are_a_warning(schedule):
    name = ("SOLVER.LR_SCHEDULER_NAME", schedule)
    (warning,) = validate_cfg(cfg_with(*name, "SOLVER.STEPS", (20000,)))
    assert f"SOLVER.STEPS is (20000,), but {schedule} does not read it" in warning
    assert validate_cfg(cfg_with(*name)) == []  # the default is nobody's setting
    assert validate_cfg(cfg_with(*name, "SOLVER.STEPS", ())) == []
    assert validate_cfg(cfg_with("SOLVER.STEPS", (20000,))) == []


def test_clipping_may_be_switched_off_after_a_file_has_chosen_how():
    (warning,) = validate_cfg(cfg_with("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"))
    assert "CLIP_TYPE is 'full_model', but without SOLVER.CLIP_GRADIENTS.ENABLED" in warning


@pytest.mark.parametrize("warmup", [40000, 90000])
def test_warm_up_to_the_end_is_a_warning(warmup: int):
    """Detectron2 trains so, and has files for quick tests that do."""
    (warning,) = validate_cfg(cfg_with("SOLVER.WARMUP_ITERS", warmup))
    assert f"WARMUP_ITERS is {warmup} with SOLVER.MAX_ITER 40000, so all" in warning
    assert validate_cfg(cfg_with("SOLVER.WARMUP_ITERS", 39999)) == []


@pytest.mark.parametrize("path", sorted(ZOO.glob("*/*retinanet*.yaml")), ids=lambda x: x.stem)
def test_all_of_detectron2s_files_for_retinanet_are_valid(path: Path):
    cfg = get_cfg()
    load_config_file(cfg, path, allow_unsafe=True)
    for architecture in ("RetinaNet", "RetinaNetExt"):
        cfg.MODEL.META_ARCHITECTURE = architecture
        warnings = validate_cfg(cfg)
        assert len(warnings) == (path.stem == "retinanet_R_50_FPN_instant_test"), warnings
