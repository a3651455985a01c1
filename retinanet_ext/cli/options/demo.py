"""``predict demo`` without more words: pictures, a folder for the results, and drawings."""

from __future__ import annotations

import argparse
import os

from ...data.quickstart.samples import write_samples
from ...inference.run_folder import find_run
from ...weights.demo import DEMO

__all__ = ["complete_demo"]

OUTPUT = os.path.join("output", "demo")
PICTURES = "pictures"
COUNT = 6


def complete_demo(args: argparse.Namespace) -> bool:
    """Draw scenes for the model that comes with the package, where it was given no source.

    Args:
        args: of ``predict``; sources, ``--output`` and ``--draw`` are set. Its own results in the
            folder that it chose are replaced.

    Returns:
        Whether that was the command.

    Raises:
        UserError: the pictures cannot be drawn or written.
    """
    is_demo = args.sources == [DEMO] and not args.config_file and find_run(DEMO) != DEMO
    if not is_demo or args.dry_run:
        return False
    if not args.output:
        args.output, args.overwrite = OUTPUT, not args.resume
    args.draw = True
    folder = os.path.join(args.output, PICTURES)
    write_samples(folder, COUNT)
    args.sources = [DEMO, folder]
    return True
