"""Options of a training without a config, and the config that is made from them."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ...config import get_cfg
from ...config.load import merge_opts
from ...data.datasets.command_line import name_datasets, split_flag
from ...data.datasets.register import register_builtin_datasets
from ...data.formats import detect
from ...engine.job import start_logging
from ...engine.launch.cluster import find_job
from ...engine.launch.restarts import continues_job, job_starts
from ...engine.user_modules import import_modules
from ...errors import InputError
from ...recipe import (
    PRESETS,
    Wishes,
    default_output_dir,
    make_recipe,
    measure_pace,
    recipe_file,
    save_recipe,
    stopwatch,
)

__all__ = ["RECIPE_OPTIONS", "add_recipe", "recipe_options", "take_data"]

RECIPE_OPTIONS = ("data", "minutes", "epochs", "preset")


def recipe_options() -> argparse.ArgumentParser:
    """Parent parser of ``train``."""
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group(
        "without --config-file", "everything is chosen from data and machine, and shown"
    )
    group.add_argument(
        "--data",
        metavar="FOLDER",
        help="pictures and boxes as any tool exports them; validation pictures are those of the "
        "folder, or a fifth is held back. With --config-file it does the same as --train",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=_positive,
        metavar="N",
        help="how long the whole command may take (default: 15 on a CPU, 60 on a GPU)",
    )
    length.add_argument("--epochs", type=_positive, metavar="N", help="in place of --minutes")
    group.add_argument(
        "--preset", choices=PRESETS, help="network and picture size (default: balanced)"
    )
    return parent


def take_data(args: argparse.Namespace) -> bool:
    """Put ``--data`` in place of ``--train``; whether everything else is to be chosen, too.

    Raises:
        InputError: two options contradict.
    """
    if args.data is not None and args.train is not None:
        raise InputError("--data and --train both name the training data; give one of them")
    if args.data is not None:
        args.train = args.data
    chooses = not args.config_file and args.train is not None and not args.eval_only
    if not chooses:
        for name in RECIPE_OPTIONS[1:]:
            if getattr(args, name) is not None:
                what = "--config-file" if args.config_file else "--data"
                reason = "says how long and what" if args.config_file else "is missing"
                raise InputError(
                    f"--{name} is for a training without a config, but {what} {reason}"
                )
    return chooses


def add_recipe(args: argparse.Namespace) -> str:
    """Choose all settings and name the file with them as ``args.config_file``; say its OUTPUT_DIR.

    With ``--resume``, or where Slurm has started the job again, the file of before is taken as it
    is: nothing is chosen again.

    Raises:
        UserError: what is wrong with the options or the data.
    """
    spent = stopwatch()
    if find_job() is not None or args.num_machines > 1:
        raise InputError(
            "without --config-file the settings are chosen by one process; start it without "
            "torchrun and --num-machines, and then train with the recipe.yaml that it writes"
        )
    import_modules(args.imports)
    register_builtin_datasets(args.data_root)
    cfg = get_cfg()
    given = merge_opts(cfg, args.opts)
    if "OUTPUT_DIR" not in given:
        cfg.OUTPUT_DIR = default_output_dir(split_flag(args.train)[0])
    output_dir, path = cfg.OUTPUT_DIR, recipe_file(cfg.OUTPUT_DIR)
    starts = job_starts()
    args.resume = args.resume or (
        os.path.isfile(path) and not args.dry_run and continues_job(output_dir, starts)
    )
    if args.resume and os.path.isfile(path):
        print(f"{path}: continuing with what was chosen for this run")
    else:
        cfg.MODEL.DEVICE = "cpu" if args.num_gpus == 0 else args.device or cfg.MODEL.DEVICE
        start_logging(None, args.verbose)
        with _one_line_about_the_data():
            name_datasets(cfg, args.train, args.val, args.classes)
        wishes = Wishes(args.minutes, args.epochs, args.preset or "balanced")
        command = ["retinanet-ext", *_words_of_command()]
        text = make_recipe(cfg, given, wishes, measure_pace, spent, command, max(1, args.num_gpus))
        folder = tempfile.mkdtemp(prefix="retinanet_ext_") if args.dry_run else output_dir
        path = save_recipe(folder, text)
        print(f"{path}: these settings; edit them and train with --config-file {path}\n")
    args.config_file = path
    args.train = args.val = args.classes = args.data = None  # the file has them
    return output_dir


@contextmanager
def _one_line_about_the_data() -> Iterator[None]:
    """The recipe says in one line what was taken for what; detection need not, for each file."""
    detection = logging.getLogger(detect.__module__)
    detection.disabled = True
    try:
        yield
    finally:
        detection.disabled = False


def _words_of_command() -> list[str]:
    return sys.argv[1:] if sys.argv[1:2] == ["train"] else ["train", *sys.argv[1:]]


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value
