"""A yaml config as the LazyConfig that Detectron2's ``tools/lazyconfig_train_net.py`` trains."""

from __future__ import annotations

import os
from typing import Any

from detectron2.config import CfgNode

from ...config import get_cfg, load_config_file, validate_cfg
from ...config.keys import differ
from ...config.load import flatten
from ...errors import InputError, listed
from .data import DATA_KEYS, lazy_dataloader
from .model import MODEL_KEYS, lazy_model
from .solver import SOLVER_KEYS, lazy_lr_multiplier, lazy_optimizer

TRAIN_KEYS = (
    "CUDNN_BENCHMARK",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "SEED",
    "SOLVER.AMP.ENABLED",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.MAX_ITER",
    "TEST.EVAL_PERIOD",
)
CARRIED = ("VERSION", *MODEL_KEYS, *DATA_KEYS, *SOLVER_KEYS, *TRAIN_KEYS)
"""Keys, and sections, that a LazyConfig says in its own words."""

NOT_CARRIED = ("MODEL.RETINANET.FREEZE",)
"""Keys of these sections that are read outside of the model."""


def lazy_config(source: str | os.PathLike[str] | CfgNode) -> dict[str, Any]:
    """The LazyConfig that trains what a yaml config trains.

    A config file in LazyConfig form is then two lines, and its values are those of the yaml file::

        _config = lazy_config("retinanet_R_50_FPN_1x.yaml")
        model, dataloader, optimizer, lr_multiplier, train = _config.values()

    Each part is a tree of LazyCalls as in Detectron2's python configs, to be changed at any place:
    ``model.num_classes=3 optimizer.lr=0.001`` on the command line.

    Args:
        source: a yaml file, the name of a shipped one, or a config.

    Returns:
        ``model``, ``dataloader``, ``optimizer``, ``lr_multiplier`` and ``train``.

    Raises:
        ConfigError, InputError: the config is not valid, or sets what Detectron2's LazyConfig tool
            does not do; names the keys.
    """
    if isinstance(source, CfgNode):
        cfg = source
    else:
        cfg = get_cfg()
        load_config_file(cfg, source)
    validate_cfg(cfg)
    check_carried(cfg)
    return {
        "model": lazy_model(cfg),
        "dataloader": lazy_dataloader(cfg),
        "optimizer": lazy_optimizer(cfg),
        "lr_multiplier": lazy_lr_multiplier(cfg),
        "train": _train(cfg),
    }


def check_carried(cfg: CfgNode) -> None:
    """Raise InputError for keys that are set, and that nothing would read in a LazyConfig."""
    defaults = dict(flatten(get_cfg()))
    lost = [
        key
        for key, value in flatten(cfg)
        if not _is_carried(key) and (key not in defaults or differ(value, defaults[key]))
    ]
    if lost:
        raise InputError(
            f"{listed(lost)} cannot be said in a LazyConfig, which Detectron2's own tool trains; "
            "train the yaml file with retinanet-ext or train_net.py, or leave these keys at their "
            "defaults"
        )


def _is_carried(key: str) -> bool:
    if key in NOT_CARRIED:
        return False
    return any(key == name or key.startswith(f"{name}.") for name in CARRIED)


def _train(cfg: CfgNode) -> dict[str, Any]:
    """What Detectron2's ``common/train.py`` holds."""
    solver = cfg.SOLVER
    return {
        "output_dir": cfg.OUTPUT_DIR,
        "init_checkpoint": cfg.MODEL.WEIGHTS,
        "max_iter": solver.MAX_ITER,
        "amp": {"enabled": solver.AMP.ENABLED},
        "ddp": {
            "broadcast_buffers": False,
            "find_unused_parameters": False,
            "fp16_compression": False,
        },
        "checkpointer": {"period": solver.CHECKPOINT_PERIOD, "max_to_keep": 100},
        "eval_period": cfg.TEST.EVAL_PERIOD,
        "log_period": 20,
        "device": cfg.MODEL.DEVICE,
        "seed": cfg.SEED,
        "cudnn_benchmark": cfg.CUDNN_BENCHMARK,
    }
