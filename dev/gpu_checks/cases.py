"""The model that is measured: R50-FPN at 800 x 1216, or something tiny to try the script."""

from __future__ import annotations

from typing import Any, TypeVar

from retinanet_ext import get_cfg
from retinanet_ext.benchmark.settings import Settings
from retinanet_ext.cli.benchmark import DEFAULT_KEYS

from .report import Job

__all__ = ["settings_of", "small_or"]

T = TypeVar("T")


def small_or(job: Job, usual: T, tiny: T) -> T:
    """The one or the other."""
    return tiny if job.tiny else usual


def settings_of(job: Job, batch: int = 2, keys: dict[str, Any] | None = None) -> Settings:
    """Settings of a measurement.

    Args:
        job: whose device and size.
        batch: images.
        keys: of the config, on both sides.
    """
    cfg = get_cfg()
    cfg.merge_from_list(DEFAULT_KEYS)
    cfg.MODEL.DEVICE = job.device
    cfg.VIS_PERIOD = 0
    if job.tiny:
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        cfg.MODEL.FPN.OUT_CHANNELS = 32
        cfg.MODEL.RETINANET.NUM_CLASSES = 4
    settings = Settings(
        config=cfg.dump(),
        size=small_or(job, (800, 1216), (96, 128)),
        batch=batch,
        num_gt=small_or(job, 20, 3),
    )
    return settings.with_keys(keys) if keys else settings
