"""What the command line says of a config: options that all commands share, ``KEY VALUE`` pairs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detectron2.config import CfgNode

from ..errors import ConfigError, InputError, did_you_mean, one_line
from .load import flatten

__all__ = ["add_config_arguments", "merge_opts"]


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command that loads a config has, but the config's name."""
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder of this package's built-in datasets (default: $DETECTRON2_DATASETS, else "
        "./datasets); Detectron2's own, such as coco_2017_train, follow the variable only",
    )
    parser.add_argument(
        "--device", default="", metavar="NAME", help="cpu or cuda (default: the config's)"
    )
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this module of yours before the config is read, so that it registers its "
        "components, keys and datasets; may be given several times",
    )
    parser.add_argument(
        "--allow-unsafe-yaml",
        action="store_true",
        help="let the config file run python code through yaml tags (only for files you trust)",
    )


def merge_opts(cfg: CfgNode, opts: Sequence[str]) -> set[str]:
    """Merge ``KEY VALUE KEY VALUE ...`` from the command line into ``cfg``; return the keys.

    Raises:
        ConfigError: a key does not exist; names the nearest one.
        InputError: the list is not made of pairs, or a value has the wrong type.
    """
    for word in opts:
        if word.startswith("--"):
            raise InputError(f"{word} must stand before the KEY VALUE pairs on the command line")
    known = {name for name, _ in flatten(cfg)}
    for key in opts[::2]:
        if key not in known:
            name, _, value = key.partition("=")
            hint = f" Write '{name} {value}'." if name in known else did_you_mean(key, known)
            raise ConfigError(f"unknown config key '{key}' on the command line.{hint}")
    if len(opts) % 2:
        raise InputError(f"config key '{opts[-1]}' on the command line has no value after it")
    try:
        cfg.merge_from_list(list(opts))
    except ValueError as error:  # yacs names the key, its type and the value's
        raise InputError(f"on the command line: {one_line(error)}") from error
    return set(opts[::2])
