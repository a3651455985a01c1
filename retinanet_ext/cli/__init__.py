"""The ``retinanet-ext`` command. A subcommand's module has ``add_parser``, and is imported only
when the command is chosen.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence

from .. import __version__

__all__ = ["main"]

# Command -> its module, and what it does.
COMMANDS = {
    "train": ("train", "train a detector: what train_net.py does"),
    "evaluate": ("train", "evaluate a checkpoint: train_net.py --eval-only"),
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
PROG = "retinanet-ext"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status.

    Args:
        argv: the words after the program's name; those of this process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if importlib.util.find_spec("detectron2") is None:
        try:
            from .. import get_cfg  # noqa: F401  (says how to get it)
        except ImportError as error:
            print(f"{PROG}: error: {error}", file=sys.stderr)
            return 2
    from .common import run_guarded

    args = _build_parser(words[0] if words else "").parse_args(words)
    return run_guarded(lambda: args.run(args), args.debug, PROG)


def _build_parser(chosen: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description="RetinaNet for Detectron2")
    parser.add_argument("--version", action="version", version=f"retinanet_ext {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, what) in COMMANDS.items():
        if name == chosen:
            importlib.import_module(f"{__name__}.{module}").add_parser(subparsers, name)
        else:
            subparsers.add_parser(name, help=what)
    return parser
