"""Checks of the config keys of evaluation in training: best checkpoint, early stopping, EMA."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

__all__ = ["check_evaluation"]


def check_evaluation(cfg: CfgNode, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise on settings of TEST and SOLVER.EMA that would be ignored or cannot work.

    Args:
        cfg: the config.
        values, defaults: flat, by full name.

    Raises:
        ValueError: names the key, its value and the way out.
    """
    _check_ema(cfg, values, defaults)
    test, metric = cfg.TEST, cfg.TEST.BEST_METRIC
    if test.VAL_LOSS and not cfg.DATASETS.TEST:
        raise ValueError(
            "TEST.VAL_LOSS is True but DATASETS.TEST is empty; name a dataset there, or give --val"
        )
    parts = metric.split("/")
    if "ema" in parts and not cfg.SOLVER.EMA.ENABLED:
        raise ValueError(
            f"TEST.BEST_METRIC is '{metric}', but without SOLVER.EMA.ENABLED there are no averaged "
            "weights to evaluate; set SOLVER.EMA.ENABLED True"
        )
    if "val_loss" in parts and not test.VAL_LOSS:
        raise ValueError(
            f"TEST.BEST_METRIC is '{metric}', but without TEST.VAL_LOSS there is no validation "
            "loss; set TEST.VAL_LOSS True"
        )
    _check_patience(cfg)
    chosen = test.EARLY_STOPPING_PATIENCE > 0 or metric != defaults["TEST.BEST_METRIC"]
    names = cfg.DATASETS.TEST
    if chosen and metric and len(names) > 1 and not any(x in metric for x in names):
        start = "ema/" if parts[0] == "ema" else ""
        raise ValueError(
            f"TEST.BEST_METRIC is '{metric}', but with {len(names)} datasets in DATASETS.TEST "
            "results are named after them; set it to "
            f"'{start}{names[0]}/{metric.removeprefix('ema/')}' or that of another one"
        )


def _check_patience(cfg: CfgNode) -> None:
    test = cfg.TEST
    patience = test.EARLY_STOPPING_PATIENCE
    if patience < 0:
        raise ValueError(
            f"TEST.EARLY_STOPPING_PATIENCE is {patience}; set it to a number of evaluations, or to "
            "0 to train to the end"
        )
    if patience == 0:
        return
    lacks = ""
    if not test.BEST_METRIC:
        lacks = "TEST.BEST_METRIC is ''; name what has to get better, such as bbox/AP"
    elif test.EVAL_PERIOD <= 0 and not test.EVAL_EPOCHS:
        lacks = "TEST.EVAL_PERIOD is 0; set it to the iterations between two evaluations"
    elif not cfg.DATASETS.TEST:
        lacks = "DATASETS.TEST is empty; name a dataset to evaluate on"
    if lacks:
        raise ValueError(f"TEST.EARLY_STOPPING_PATIENCE is {patience}, but {lacks}")


def _check_ema(cfg: CfgNode, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    node = cfg.SOLVER.EMA
    if not 0 <= node.DECAY < 1:
        raise ValueError(
            f"SOLVER.EMA.DECAY is {node.DECAY}; the share of the average that stays at each step "
            "must be in [0, 1), for example 0.999"
        )
    if node.ENABLED:
        return
    for key in ("SOLVER.EMA.DECAY", "SOLVER.EMA.WARMUP"):
        if values[key] != defaults[key]:
            raise ValueError(
                f"{key} is {values[key]}, but without SOLVER.EMA.ENABLED nothing reads it; set "
                "SOLVER.EMA.ENABLED True"
            )
