"""``retinanet-ext train`` and ``evaluate``, and the body of ``train_net.py``: from the command line
to a trained, evaluated or dry-run detector. Without a config, :mod:`~retinanet_ext.recipe` has one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from retinanet_ext_command import until_reader_leaves

from ..engine import RetinaNetTrainer, evaluate
from ..engine.dry_run import dry_run
from ..engine.launch.checks import check_launch
from ..engine.launch.launching import launch_job
from ..engine.launch.output_lock import release_output_dir
from ..engine.launch.signals import quiet_signals
from ..engine.setup import default_argument_parser, setup
from ..recipe import last_words
from .common import check_config_is_named, check_device, debug_options, pairs, run_guarded
from .options.train import RECIPE_OPTIONS, add_recipe, recipe_options, take_data
from .run_report import report_after_training

__all__ = ["add_parser", "main", "projects_of", "run", "start"]

DESCRIPTIONS = {
    "train": "Train a detector on --data, or from a config file, on GPUs or CPUs; with --resume, "
    "continue the run in OUTPUT_DIR; with --dry-run, see in seconds whether it would work.",
    "evaluate": "Evaluate MODEL.WEIGHTS, or with --resume the last checkpoint in OUTPUT_DIR, on "
    "DATASETS.TEST.",
}


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command ``train`` or ``evaluate``, with the options of ``train_net.py``."""
    parser = subparsers.add_parser(
        name,
        description=DESCRIPTIONS[name],
        parents=_parents() if name == "train" else _parents()[:-1],
        add_help=False,  # the first of them has it
    )
    parser.set_defaults(run=start)
    if name == "evaluate":
        parser.set_defaults(eval_only=True, **dict.fromkeys(RECIPE_OPTIONS))
    return parser


def main(args: argparse.Namespace) -> Any:
    """What each process of the job runs; returns the evaluation's results.

    Raises:
        UserError: a mistake in the command line, the config or the data.
        TrainingFailed: the training cannot continue.
    """
    with quiet_signals():
        cfg = setup(args)
        if args.dry_run:
            return dry_run(cfg, resume=args.resume)
        if args.eval_only:
            return evaluate(cfg, resume=args.resume)
        try:
            trainer = RetinaNetTrainer(cfg)
            trainer.resume_or_load(resume=args.resume)
            results = trainer.train()
            if cfg.TEST.REPORT and comm.is_main_process():
                report_after_training(cfg)
            return results
        finally:
            release_output_dir()


def start(args: argparse.Namespace) -> int:
    """Start the processes that the command line asks for, or join those of torchrun or Slurm.

    Raises:
        UserError, TrainingFailed: as :func:`main`, also where a started process raised it.
    """
    args.opts = pairs(args.opts)
    chooses = take_data(args)
    if not chooses and not getattr(args, "model", ""):
        check_config_is_named(args)
    check_device(args.device)
    check_launch(args)
    output_dir = add_recipe(args) if chooses else ""
    launch_job(main, args)
    if chooses and not args.dry_run:
        print(*last_words(output_dir), sep="\n")
    return 0


def projects_of(config_file: str) -> list[str]:
    """``projects.NAME`` for a config below ``projects/NAME``, a package that can be imported.

    So what the project registers is known. The folder of ``projects`` is the working directory or
    the script's.
    """
    roots = {Path(x).resolve() for x in (".", *sys.path)}
    path = Path(config_file).resolve()
    for projects in path.parents:
        if projects.name == "projects" and projects.parent in roots:
            name = path.relative_to(projects).parts[0]
            return [f"projects.{name}"] if (projects / name / "__init__.py").is_file() else []
    return []


def _parents() -> list[argparse.ArgumentParser]:
    return [default_argument_parser(), debug_options(), recipe_options()]


def run(argv: list[str] | None = None) -> None:
    """The whole of ``train_net.py``.

    Exits with code 2 on a user's mistake, 1 where training failed, and after a signal with 0
    (SIGTERM, SIGUSR1, SIGHUP) or 130 (Ctrl-C); where that came outside of training, when there is
    nothing to save, with 128 and the signal's number.

    Args:
        argv: the words after the script's name; those of this process by default.
    """
    code = until_reader_leaves(lambda: _run(argv))
    if code:
        sys.exit(code)


def _run(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        description=DESCRIPTIONS["train"],
        parents=_parents(),
        add_help=False,  # the first of them has it
    )
    args = parser.parse_args(argv)
    args.imports = [*projects_of(args.config_file), *(args.imports or ())]
    return run_guarded(lambda: start(args), args.debug)
