"""A trained model: the OUTPUT_DIR of its training, an exported file, or a config and weights."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode

from ...config.load import merge_opts
from ...data.datasets.register import register_builtin_datasets
from ...engine.user_modules import import_modules
from ...errors import InputError
from ...inference.exported import cfg_of_export, is_export
from ...inference.run_folder import cfg_of_run
from ..common import check_device, load_cfg, pairs

__all__ = ["add_trailing_opts", "check_one_model", "load_model_cfg"]


def add_trailing_opts(parser: argparse.ArgumentParser) -> None:
    """Add ``--opts``, for commands whose plain words are something else."""
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config keys and their values, the last words of the command",
    )


def check_one_model(args: argparse.Namespace) -> None:
    """Raise InputError unless either MODEL or ``--config-file`` is given."""
    if bool(args.model) == bool(args.config_file):
        what = "both" if args.model else "neither"
        raise InputError(
            f"{what} of MODEL and --config-file are given; give the OUTPUT_DIR of a training, or "
            "a config file and --weights"
        )


def load_model_cfg(args: argparse.Namespace, model: str) -> CfgNode:
    """The config of a model, with its ``MODEL.WEIGHTS``, not yet validated.

    Args:
        args: of a parser with the options of ``config_options``, ``--weights`` and ``--opts``.
        model: OUTPUT_DIR of the training, or an exported file or its folder; "" where
            ``--config-file`` and ``--weights`` are given.

    Raises:
        UserError: names the file, the key or the option.
    """
    if not model:
        cfg = load_cfg(args)
        cfg.MODEL.WEIGHTS = args.weights
        return cfg
    import_modules(args.imports)
    check_device(args.device)
    if is_export(model):
        if args.weights:
            raise InputError(f"--weights goes with a training, but MODEL '{model}' is an export")
        cfg = cfg_of_export(model)
    else:
        cfg = cfg_of_run(model, args.weights, args.allow_unsafe_yaml)
    merge_opts(cfg, pairs(args.opts))
    cfg.MODEL.DEVICE = args.device or cfg.MODEL.DEVICE
    register_builtin_datasets(args.data_root)
    return cfg
