"""The ``retinanet-ext`` command. A subcommand's module has ``add_parser``, and is imported only
when the command is chosen. What needs no command is answered by :mod:`retinanet_ext_command`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence

from retinanet_ext_command import COMMANDS, PROG, command_parser, until_reader_leaves

from .. import __version__

__all__ = ["main"]

OF_DETECTORS = ("evaluate", "predict", "draw-detections", "serve")
"""Commands whose time is a detector's on pictures."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status.

    Args:
        argv: the words after the program's name; those of this process by default, which is then
            set up for the command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return until_reader_leaves(lambda: _run(words, own_process=argv is None))


def _run(words: list[str], own_process: bool) -> int:
    if importlib.util.find_spec("detectron2") is None:
        try:
            from .. import get_cfg  # noqa: F401  (says how to get it)
        except ImportError as error:
            print(f"{PROG}: error: {error}", file=sys.stderr)
            return 2
    from PIL import Image

    from .common import run_guarded

    if own_process and words and words[0] in OF_DETECTORS:
        from ..inference.allocator import keep_freed_memory

        keep_freed_memory()
    parser = _build_parser(words[0] if words else "")
    args, rest = parser.parse_known_args(words)
    # argparse takes positional words only where they stand together; sources may stand anywhere.
    if rest and not (hasattr(args, "sources") and all(x == "-" or x[:1] != "-" for x in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.sources += rest
    # Every command that reads pictures says which are too large for Pillow; those above half of
    # that are no cause for a warning.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return run_guarded(lambda: args.run(args), args.debug, PROG)


def _build_parser(chosen: str) -> argparse.ArgumentParser:
    parser = command_parser(f"retinanet_ext {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, what) in COMMANDS.items():
        if name == chosen:
            importlib.import_module(f"{__name__}.{module}").add_parser(subparsers, name)
        else:
            subparsers.add_parser(name, help=what)
    return parser
