"""``retinanet-ext replay-step``: repeat a training step whose loss was not finite."""

from __future__ import annotations

import argparse
from typing import Any

from ..engine.failures.nonfinite import files_of
from ..engine.replay import Replay, load_snapshot, replay
from .common import check_device, debug_options

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[debug_options()],
        description="Repeat the forward and backward pass of a snapshot that training left in "
        "OUTPUT_DIR/trouble, and tell where numbers stop being finite. Exit status 1 if they do.",
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="a snapshot.pth")
    parser.add_argument(
        "--device", default="", help="cpu or cuda (default: the run's, or cpu if absent)"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print what happened; return 0 if all was finite, else 1.

    Raises:
        UserError: names the file or the option, and what can be done.
    """
    check_device(args.device)
    snapshot = load_snapshot(args.snapshot)
    found = replay(snapshot, args.device)
    files = ", ".join(files_of(snapshot["batch"]))
    print(f"iteration {snapshot['iteration']} in {found.precision}, images: {files}")
    for name, value in found.losses.items():
        before = snapshot["losses"].get(name)
        print(f"{name}: {value:.6g}" + ("" if before is None else f" (in the run: {before:.6g})"))
    for line in _findings(found):
        print(line)
    return 0 if found.finite else 1


def _findings(found: Replay) -> list[str]:
    if found.finite:
        return ["all losses, outputs and gradients are finite"]
    lines = []
    if found.weights:
        names, more = ", ".join(found.weights[:5]), len(found.weights) - 5
        lines.append(
            f"not finite before the step: {names}{f' and {more} more' if more > 0 else ''}; an "
            "earlier step broke them"
        )
    if found.module:
        inputs = "finite" if found.inputs_finite else "not finite"
        lines.append(
            f"first module with an output that is not finite: {found.module} (its inputs are "
            f"{inputs})"
        )
    if found.gradient:
        lines.append(f"first parameter with a gradient that is not finite: {found.gradient}")
    return lines
