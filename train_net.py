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

from retinanet_ext.data.bad_images import BadImageError
from retinanet_ext.engine import RetinaNetTrainer, evaluate, launch
from retinanet_ext.engine.checks import check_launch
from retinanet_ext.engine.dry_run import dry_run
from retinanet_ext.engine.setup import USER_ERRORS, default_argument_parser, setup
from retinanet_ext.engine.weights import WeightsError


class UserError(Exception):
    """A mistake in the command line, the config or the data, told in one sentence."""


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
    except (BadImageError, WeightsError) as error:
        raise UserError(str(error)) from error


def run(argv: list[str] | None = None) -> None:
    """Start the processes that the command line asks for; exit with code 2 on a user's mistake."""
    args = default_argument_parser().parse_args(argv)
    try:
        checked(check_launch, args)
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
        return
    except UserError as error:
        message = str(error)
    except ProcessRaisedException as failure:
        # The exception of a process that launch started arrives as the text of its traceback.
        _, mistake, message = str(failure).rpartition(f"{UserError.__name__}: ")
        if not mistake:
            raise
    print(f"error: {message.strip()}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    run()
