#!/usr/bin/env python
"""Train, resume, evaluate or dry-run a detector from a config file, on GPUs or CPUs.

python train_net.py --config-file configs/quickstart.yaml
python train_net.py --config-file configs/quickstart.yaml --resume
python train_net.py --config-file configs/quickstart.yaml --eval-only --resume
python train_net.py --config-file configs/quickstart.yaml --dry-run
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from torch.multiprocessing import ProcessRaisedException

from retinanet_ext.data.loading.bad_images import BadImageError
from retinanet_ext.engine import RetinaNetTrainer, evaluate, launch_job
from retinanet_ext.engine.checkpoint.hook import CheckpointError
from retinanet_ext.engine.checkpoint.weights import WeightsError
from retinanet_ext.engine.dry_run import dry_run
from retinanet_ext.engine.evaluating.best_metric import MetricError
from retinanet_ext.engine.failures.reports import MachineError, NonFiniteLoss
from retinanet_ext.engine.launch.checks import check_launch
from retinanet_ext.engine.launch.launching import LaunchError
from retinanet_ext.engine.setup import USER_ERRORS, default_argument_parser, setup

MISTAKES = (BadImageError, WeightsError, MetricError)
TROUBLES = (NonFiniteLoss, MachineError, CheckpointError)


class UserError(Exception):
    """A mistake in the command line, the config or the data, told in one sentence."""

    exit_code = 2


class TrainingFailed(Exception):
    """A training that could not go on, told in one or two sentences."""

    exit_code = 1


def checked(function: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """Return ``function(args)``; raise a user's mistake as :class:`UserError`."""
    try:
        return function(args)
    except USER_ERRORS as error:
        # str() of a KeyError is the repr of its message.
        message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        if " " not in message:  # no sentence written for a user, so a bug: keep its traceback
            raise
        raise UserError(message) from error


def main(args: argparse.Namespace) -> Any:
    """What each process of the job runs; returns the evaluation's results."""
    cfg = checked(setup, args)
    try:
        if args.dry_run:
            return dry_run(cfg)
        if args.eval_only:
            return evaluate(cfg, resume=args.resume)
        trainer = RetinaNetTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    except MISTAKES as error:
        raise UserError(str(error)) from error
    except TROUBLES as error:
        raise TrainingFailed(str(error)) from error


def run(argv: list[str] | None = None) -> None:
    """Start the processes that the command line asks for, or join those of torchrun or Slurm.

    Exits with code 2 on a user's mistake, 1 where training failed, and after a signal with 0
    (SIGTERM, SIGUSR1) or 130 (Ctrl-C).
    """
    args = default_argument_parser().parse_args(argv)
    try:
        checked(check_launch, args)
        launch_job(main, args)
        return
    except (UserError, TrainingFailed) as error:
        kind, message = type(error), str(error)
    except LaunchError as error:
        kind, message = TrainingFailed, str(error)
    except ProcessRaisedException as failure:
        # The exception of a process that launch started arrives as the text of its traceback.
        found = [
            (kind, message)
            for kind in (UserError, TrainingFailed)
            for _, known, message in [str(failure).rpartition(f"{kind.__name__}: ")]
            if known
        ]
        if not found:
            raise
        kind, message = found[0]
    print(f"error: {message.strip()}", file=sys.stderr)
    sys.exit(kind.exit_code)


if __name__ == "__main__":
    run()
