"""The program ``retinanet-ext``: its help, and the choice of a command, without PyTorch.

This module stands beside the package because importing ``retinanet_ext`` registers its components
with Detectron2, which takes seconds: too long for a list of commands, or the word about a typing
error. Everything else is done by :func:`retinanet_ext.cli.main`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "PROG", "command_parser", "main"]

PROG = "retinanet-ext"
# Command -> its module in retinanet_ext.cli, and what it does.
COMMANDS = {
    "train": ("train", "train a detector: what train_net.py does"),
    "evaluate": ("train", "evaluate a checkpoint: train_net.py --eval-only"),
    "predict": ("predict", "detections of pictures, videos or a camera: as json, csv or drawn"),
    "draw-detections": ("draw_detections", "draw a model's detections on images"),
    "benchmark": (
        "benchmark",
        "measure time and memory against Detectron2's and torchvision's RetinaNet",
    ),
    "check-data": ("check_data", "find faults in annotations and images"),
    "show-data": ("show_data", "draw training samples as the model sees them"),
    "anchors": ("anchors", "show how well anchors cover a training set, or optimise them"),
    "replay-step": ("replay_step", "repeat a training step whose loss was not finite"),
}


def command_parser(version: str = "") -> argparse.ArgumentParser:
    """The program's parser without its commands; ``version`` is what ``--version`` shows."""
    parser = argparse.ArgumentParser(prog=PROG, description="RetinaNet for Detectron2")
    parser.add_argument("--version", action="version", version=version)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the words after the program's name; those of this process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and (words[0] in COMMANDS or words[0] == "--version"):
        from retinanet_ext.cli import main as run_command

        return run_command(words)
    parser = command_parser()
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, what) in COMMANDS.items():
        subparsers.add_parser(name, help=what)
    parser.parse_args(words)  # shows the help, or what is wrong, and exits
    return 2


if __name__ == "__main__":
    sys.exit(main())
