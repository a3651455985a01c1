"""Reading config files, and configs as flat lists of keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import yaml
from detectron2.config import CfgNode

from ..errors import ConfigError, InputError, UserError, one_line
from .shipped import find_config
from .yaml_files import check_yaml_files

__all__ = ["flatten", "load_config_file"]


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
        raise kind(f"config file '{path}' or its _BASE_: {one_line(error)}") from error
    return {key for key, _ in flatten(CfgNode(written))}


def flatten(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("MODEL.RETINANET.NUM_CLASSES", 80)`` for every leaf of a config."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
