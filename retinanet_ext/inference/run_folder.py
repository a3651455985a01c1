"""The config and weights of a finished, or running, training: its OUTPUT_DIR."""

from __future__ import annotations

import os
from pathlib import Path

from detectron2.config import CfgNode

from ..config import get_cfg, load_config_file
from ..engine.checkpoint.last_checkpoint import BEST, candidates
from ..errors import MissingFileError
from ..weights.demo import DEMO, DEMO_FOLDER, has_demo

__all__ = ["cfg_of_run", "find_run", "weights_of_run"]

CONFIG = "config.yaml"
FINAL = "model_final.pth"


def cfg_of_run(folder: str, weights: str = "", allow_unsafe: bool = False) -> CfgNode:
    """The config that a training wrote, with ``MODEL.WEIGHTS`` set to its model.

    Args:
        folder: OUTPUT_DIR of the training, or ``demo``, see :func:`find_run`.
        weights: "" is :func:`weights_of_run`; "best" and "final" are those files; else a file, in
            the folder or as a path.
        allow_unsafe: see :func:`load_config_file`.

    Raises:
        FileNotFoundError: no such folder, no config or no checkpoint in it.
    """
    folder = find_run(folder)
    config = Path(folder) / CONFIG
    if not Path(folder).is_dir():
        raise MissingFileError(f"'{folder}' is no folder; give the OUTPUT_DIR of a training")
    if not config.is_file():
        raise MissingFileError(
            f"'{folder}' holds no {CONFIG}, so it is not the OUTPUT_DIR of a training; give that, "
            "or a config file and weights"
        )
    cfg = get_cfg()
    load_config_file(cfg, str(config), allow_unsafe=allow_unsafe)
    cfg.MODEL.WEIGHTS = weights_of_run(folder, weights)
    return cfg


def find_run(folder: str) -> str:
    """``folder``, or of ``demo`` that of the model that comes with the package.

    Where there is a training of that name, it is that one.
    """
    is_own = os.path.isfile(os.path.join(folder, CONFIG))
    return str(DEMO_FOLDER) if folder == DEMO and not is_own and has_demo() else folder


def weights_of_run(folder: str, weights: str = "") -> str:
    """Path of a training's model: the final one, or of a run that has not ended, the newest.

    Args:
        folder: OUTPUT_DIR.
        weights: see :func:`cfg_of_run`.

    Raises:
        FileNotFoundError: it is not there; lists what is.
    """
    wanted = {"": FINAL, "final": FINAL, "best": BEST}.get(weights, weights)
    for path in (os.path.join(folder, wanted), *([wanted] if weights else [])):
        if os.path.isfile(path):
            return path
    if not weights:
        for path in candidates(folder):
            if os.path.isfile(path):
                return path
    there = sorted(entry.name for entry in Path(folder).glob("*.pth"))
    known = f"there are {', '.join(there)}" if there else "the training has saved no model yet"
    raise MissingFileError(f"'{folder}' holds no {wanted}; {known}")
