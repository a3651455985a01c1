"""What is merged into a config, from files and the command line; configs as flat lists of keys."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from detectron2.config import CfgNode

from ..errors import ConfigError, InputError, UserError, did_you_mean, one_line
from .shipped import find_config
from .yaml_files import check_yaml_files

__all__ = ["add_config_arguments", "flatten", "load_config_file", "merge_opts"]


def load_config_file(
    cfg: CfgNode, path: str | os.PathLike[str], allow_unsafe: bool = False
) -> set[str]:
    """Merge a yaml file and its ``_BASE_`` files into ``cfg``.

    Where there is no file ``path``, it may be the name of a shipped config, such as
    ``retinanet_R_50_FPN_1x.yaml`` (see :func:`retinanet_ext.config.shipped.find_config`).

    Detectron2's ``cfg.merge_from_file`` runs Python code that a yaml file asks for; here that takes
    ``allow_unsafe``.

    Returns:
        The keys that the files set, even where the value is the default, such as
        ``MODEL.RETINANET.NUM_CLASSES``.

    Raises:
        MissingFileError: if there is no such file and no such shipped config.
        ConfigError: if the file has an unknown key.
        InputError: if the file is not yaml, or asks for code to be run without ``allow_unsafe``.
    """
    path = find_config(path)
    try:
        check_yaml_files(path)
        cfg.merge_from_file(path, allow_unsafe=allow_unsafe)
        written = CfgNode.load_yaml_with_base(path, allow_unsafe=allow_unsafe)
    except yaml.constructor.ConstructorError as error:
        raise InputError(
            f"config file '{path}' or its _BASE_ holds the yaml tag of a Python object "
            f"({error.problem}), which would run code. If you trust it (Detectron2's own "
            "Base-RetinaNet.yaml has one), pass --allow-unsafe-yaml"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(
            f"config file '{path}' or its _BASE_ is not yaml: {one_line(error)}"
        ) from error
    except UserError:
        raise
    except (KeyError, ValueError, AssertionError) as error:  # of yacs, which names the key
        kind = ConfigError if isinstance(error, KeyError) else InputError
        hint = ""
        if "Non-existent config key" in str(error):
            hint = ". If a module of yours adds it, pass --import MODULE"
        raise kind(f"config file '{path}' or its _BASE_: {one_line(error)}{hint}") from error
    return {key for key, _ in flatten(CfgNode(written))}


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
        if str(word).startswith("--"):
            raise InputError(f"{word} must stand before the KEY VALUE pairs on the command line")
    known = {name for name, _ in flatten(cfg)}
    for key in opts[::2]:
        if key not in known:
            name, _, value = key.partition("=")
            hint = f" Write '{name} {value}'." if name in known else did_you_mean(key, known)
            raise ConfigError(f"unknown config key '{key}' on the command line.{hint}")
    if len(opts) % 2:
        raise InputError(f"config key '{opts[-1]}' on the command line has no value after it")
    floats = {name for name, value in flatten(cfg) if type(value) is float}
    values = [
        float(word) if i % 2 and opts[i - 1] in floats and _is_whole(word) else word
        for i, word in enumerate(opts)
    ]
    try:
        cfg.merge_from_list(values)
    except ValueError as error:  # yacs names the key, its type and the value's
        raise InputError(f"on the command line: {one_line(error)}") from error
    return set(opts[::2])


def _is_whole(word: Any) -> bool:
    """Whether a value is a whole number, which stands for a float where one is wanted."""
    return type(word) is int or (isinstance(word, str) and bool(re.fullmatch(r"[+-]?\d+", word)))


def flatten(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("MODEL.RETINANET.NUM_CLASSES", 80)`` for every leaf of a config."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
