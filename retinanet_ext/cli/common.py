"""Options that several commands have."""

from __future__ import annotations

import argparse

__all__ = ["add_data_root", "add_training_set"]


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Add ``--data-root``, which ``register_builtin_datasets`` takes."""
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder of the built-in datasets (default: $DETECTRON2_DATASETS, else ./datasets)",
    )


def add_training_set(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--dataset`` or ``--train`` with ``--classes``: the training set to look at.

    Args:
        parser: of a command that has ``--config-file`` too.
        default: the set that is taken without them, for the help.
    """
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--dataset", metavar="NAME", help=f"a registered dataset (default: {default})"
    )
    which.add_argument(
        "--train",
        metavar="ANN[:IMAGES]",
        help="COCO json, folder of VOC xml, YOLO data.yaml or CSV, as of train_net.py",
    )
    parser.add_argument(
        "--classes", metavar="FILE", help="with --train: class names where VOC or CSV list none"
    )
