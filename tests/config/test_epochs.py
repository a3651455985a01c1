"""Lengths in epochs that would be ignored or cannot work are refused before any data is read."""

from __future__ import annotations

import pytest

from retinanet_ext import get_cfg, validate_cfg

EPOCHS = ("SOLVER.EPOCHS", 12)


def cfg_with(*settings):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.merge_from_list(list(settings))
    return cfg


def twelve_epochs(*settings):
    return cfg_with(*(settings if "SOLVER.EPOCHS" in settings else (*EPOCHS, *settings)))


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("SOLVER.STEPS_EPOCHS", (8, 11), "SOLVER.STEPS"),
        ("SOLVER.WARMUP_EPOCHS", 0.5, "SOLVER.WARMUP_ITERS"),
        ("SOLVER.CHECKPOINT_EPOCHS", 1, "SOLVER.CHECKPOINT_PERIOD"),
        ("TEST.EVAL_EPOCHS", 1, "TEST.EVAL_PERIOD"),
    ],
)
def test_epochs_of_one_thing_need_epochs_of_training(key, value, instead):
    words = rf"{key} is .*SOLVER.EPOCHS is not set.*set SOLVER.EPOCHS, or {instead} instead"
    with pytest.raises(ValueError, match=words):
        validate_cfg(cfg_with(key, value))
    assert validate_cfg(twelve_epochs(key, value)) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("SOLVER.EPOCHS", -1), "SOLVER.EPOCHS is -1; set it to a positive number of epochs"),
        (("SOLVER.EPOCHS", True), "SOLVER.EPOCHS is True; set it to a positive number"),
        (("SOLVER.EPOCHS", "many"), "SOLVER.EPOCHS is 'many'"),
        (("SOLVER.STEPS_EPOCHS", (11, 8)), r"STEPS_EPOCHS is \(11, 8\) with SOLVER.EPOCHS 12"),
        (("SOLVER.STEPS_EPOCHS", (8, 12)), r"must rise and lie below EPOCHS"),
        (("SOLVER.STEPS_EPOCHS", (0, 8)), "set it to a tuple of positive numbers"),
        (("SOLVER.WARMUP_EPOCHS", 12), "WARMUP_EPOCHS is 12 with SOLVER.EPOCHS 12"),
        (
            ("SOLVER.STEPS_EPOCHS", (8,), "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"),
            "STEPS_EPOCHS is .*WarmupCosineLR does not read it",
        ),
        (
            ("SOLVER.WARMUP_EPOCHS", 1, "SOLVER.LR_SCHEDULER_NAME", "OneCycleLR"),
            "WARMUP_EPOCHS is 1.*set SOLVER.ONE_CYCLE_PCT_START",
        ),
    ],
)
def test_impossible_epochs_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        validate_cfg(twelve_epochs(*settings))


@pytest.mark.parametrize("epochs", [12, 0.5])
def test_iterations_are_not_compared_before_the_epochs_are_known(epochs):
    assert validate_cfg(cfg_with("SOLVER.EPOCHS", epochs, "SOLVER.MAX_ITER", 0)) == []
    assert validate_cfg(cfg_with("SOLVER.EPOCHS", epochs, "SOLVER.MAX_ITER", 100)) == []


@pytest.mark.parametrize("off", [None, 0])
def test_no_epochs_leave_the_iterations_to_be_checked(off):
    assert validate_cfg(cfg_with("SOLVER.EPOCHS", off)) == []
    with pytest.raises(ValueError, match="MAX_ITER must be positive"):
        validate_cfg(cfg_with("SOLVER.EPOCHS", off, "SOLVER.MAX_ITER", 0))
