"""The ``retinanet-ext`` command. Each subcommand is a module with ``add_parser`` and ``run``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .. import __version__

__all__ = ["main"]

COMMANDS = ("draw_detections", "benchmark", "check_data", "show_data", "anchors", "replay_step")

# What a mistake in the command line, the config or the data raises; everything else is a bug.
USER_ERRORS = (ValueError, KeyError, OSError, ImportError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status; a user's mistake is one line on stderr.

    Args:
        argv: the words after the program's name; those of this process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _build_parser().parse_args(words)
        return args.run(args)
    except USER_ERRORS as error:
        if "--verbose" in words:
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"retinanet-ext: error: {message}", file=sys.stderr)
        return 1


def _build_parser() -> argparse.ArgumentParser:
    from .. import get_cfg  # noqa: F401  (without Detectron2, this says how to get it)

    parser = argparse.ArgumentParser(prog="retinanet-ext", description="RetinaNet for Detectron2")
    parser.add_argument("--version", action="version", version=f"retinanet_ext {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        command = importlib.import_module(f"{__name__}.{name}")
        subparser = command.add_parser(subparsers)
        subparser.add_argument(
            "--verbose", action="store_true", help="show where in the code an error came up"
        )
        subparser.set_defaults(run=command.run)
    return parser
