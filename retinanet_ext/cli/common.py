"""What the commands share: options, the config they name, and how errors end a command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from retinanet_ext_command import until_reader_leaves

from ..config import get_cfg, load_config_file
from ..config.load import add_config_arguments, merge_opts
from ..config.shipped import config_names
from ..data.datasets.register import register_builtin_datasets
from ..errors import ConfigError, InputError, did_you_mean, shown_error

__all__ = [
    "add_training_set",
    "check_config_is_named",
    "check_device",
    "check_registered",
    "config_options",
    "debug_options",
    "load_cfg",
    "pairs",
    "run_guarded",
]

DEBUG = "RETINANET_EXT_DEBUG"


def debug_options() -> argparse.ArgumentParser:
    """Parent parser of every command."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--debug",
        action="store_true",
        help=f"show where in the code an error came up ({DEBUG}=1 does the same)",
    )
    return parent


def config_options(
    required: bool = True, what: str = "the model's config", opts: bool = True
) -> argparse.ArgumentParser:
    """Parent parser of every command that loads a config; :func:`load_cfg` takes what it reads.

    Args:
        required: whether the command does nothing without ``--config-file``.
        what: help of ``--config-file``.
        opts: whether the ``KEY VALUE`` pairs are words without an option before them.
    """
    parent = debug_options()
    parent.add_argument("--config-file", default="", metavar="FILE", required=required, help=what)
    add_config_arguments(parent)
    if opts:
        parent.add_argument(
            "opts",
            nargs=argparse.REMAINDER,
            metavar="KEY VALUE",
            help="config keys and their values, the last words of the command (after -- where an "
            "option that takes several words stands before them)",
        )
    return parent


def add_training_set(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--dataset`` or ``--train`` with ``--classes``: the training set to look at.

    Args:
        parser: of a command that has ``--config-file`` too.
        default: the set that is taken without them, for the help.
    """
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--dataset", metavar="NAME", help=f"a registered dataset (default: {default})"
    )
    which.add_argument(
        "--train",
        metavar="ANN[:IMAGES]",
        help="COCO json, folder of VOC xml, YOLO data.yaml or CSV, as of train_net.py",
    )
    parser.add_argument(
        "--classes", metavar="FILE", help="with --train: class names where VOC or CSV list none"
    )


def load_cfg(args: argparse.Namespace, defaults: Sequence[str] = ()) -> CfgNode:
    """The config that the options of :func:`config_options` ask for, not yet validated.

    Also imports the user's modules and places the built-in datasets under ``--data-root``.

    Args:
        args: of a parser with these options.
        defaults: ``KEY VALUE ...`` of the command, in place of the package's.

    Raises:
        UserError: names the file, the key or the option.
    """
    if args.imports:  # engine takes a while to load
        from ..engine.user_modules import import_modules

        import_modules(args.imports)
    check_device(args.device)
    cfg = get_cfg()
    merge_opts(cfg, defaults)
    if args.config_file:
        load_config_file(cfg, args.config_file, allow_unsafe=args.allow_unsafe_yaml)
    merge_opts(cfg, pairs(args.opts))
    cfg.MODEL.DEVICE = args.device or cfg.MODEL.DEVICE
    register_builtin_datasets(args.data_root)
    return cfg


def check_registered(name: str, hint: str) -> None:
    """Check that a dataset is registered.

    Args:
        name: of the dataset.
        hint: how the user's own are named, the end of the sentence.

    Raises:
        ConfigError: it is not.
    """
    if name not in DatasetCatalog:
        raise ConfigError(
            f"dataset '{name}' is not registered.{did_you_mean(name, DatasetCatalog.list())} {hint}"
        )


def pairs(opts: Sequence[str]) -> list[str]:
    """``KEY VALUE ...`` without the ``--`` that may separate it from the options."""
    return list(opts[1:] if opts and opts[0] == "--" else opts)


def check_device(device: str) -> None:
    """Check ``--device``; an empty one is the config's.

    Raises:
        InputError: PyTorch does not know it, or finds none here.
    """
    if not device:
        return
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device is '{device}'; use cpu or cuda")
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _has_mps()}
    if not found[kind]:
        raise InputError(f"--device is '{device}', but PyTorch finds no GPU here; use --device cpu")


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def check_config_is_named(args: argparse.Namespace) -> None:
    """Raise InputError, with the configs there are, where ``--config-file`` is not given."""
    if not args.config_file:
        names = [x for x in config_names() if "/" not in x and not x.startswith("Base-")]
        raise InputError(
            "--config-file is missing; name your own config or one of those that are shipped: "
            f"{', '.join(names)}, scales/*.yaml"
        )


def run_guarded(command: Callable[[], int | None], debug: bool = False, prog: str = "") -> int:
    """Run ``command`` and return its exit status; a user's error is one sentence on stderr.

    Every other exception is a bug and keeps its traceback.

    Args:
        command: returns its exit status, or None for 0.
        debug: show the traceback of a user's error, too; so does the environment variable
            RETINANET_EXT_DEBUG.
        prog: what stands in front of the sentence.

    Returns:
        2 after a mistake in the command line, the config, the data or a file; 1 where a training
        cannot continue; 130 after Ctrl-C; 141 where the reader of the standard output is gone, as
        of programs that its signal ends.
    """
    return until_reader_leaves(lambda: _guarded(command, debug, prog))


def _guarded(command: Callable[[], int | None], debug: bool, prog: str) -> int:
    try:
        return command() or 0
    except BrokenPipeError:
        raise
    except Exception as error:
        shown = shown_error(error)
        if shown is None:
            raise
        if debug or os.environ.get(DEBUG, "0") not in ("", "0"):
            traceback.print_exc()
        print(f"{prog}{': ' if prog else ''}error: {shown}", file=sys.stderr)
        return shown.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 128 + signal.SIGINT
