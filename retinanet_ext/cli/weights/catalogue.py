"""``retinanet-ext weights``: what weights there are, bring them here, say where they are."""

from __future__ import annotations

import argparse
from typing import Any

from tabulate import tabulate

from ...errors import InputError
from ...weights.catalogue import CATALOGUE, entry_of, fetch, has_copy, place_of
from ..common import debug_options

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[debug_options()],
        description="Weights of RetinaNet trained on COCO, by Detectron2, torchvision and mmdet: "
        "`list` them, `fetch` one to where Detectron2 looks for it, or print its `path`.",
    )
    parser.add_argument("action", choices=("list", "fetch", "path"))
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="as `list` has it")
    parser.add_argument(
        "--from",
        dest="source",
        default="",
        metavar="FILE",
        help="with fetch, on a machine without internet: the file, brought from elsewhere",
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the table, or a path.

    Raises:
        UserError: names what is missing, and the file to bring.
    """
    if args.source and args.action != "fetch":
        raise InputError(f"--from is for `weights fetch`, not `weights {args.action}`; remove it")
    if args.action == "list":
        if args.name:
            raise InputError(f"`weights list` takes no name; remove {args.name}")
        print(_table())
        return 0
    if not args.name:
        raise InputError(f"`weights {args.action}` needs a NAME; `weights list` shows them")
    entry = entry_of(args.name)
    if args.action == "fetch":
        print(fetch(entry, args.source))
        print(f"use it: {entry.use}")
        return 0
    path = place_of(entry)
    if not has_copy(entry):
        raise InputError(
            f"{entry.file_name} is not here; run `retinanet-ext weights fetch {entry.name}`, with "
            f"--from FILE where there is no internet, or put the file of {entry.url} at {path}"
        )
    print(path)
    return 0


def _table() -> str:
    rows = [
        (
            entry.name,
            f"{entry.ap:.1f}",
            f"{'about ' if entry.about else ''}{entry.megabytes:.0f}",
            entry.sha256 or "not published",
            "here" if has_copy(entry) else "",
            entry.url,
        )
        for entry in CATALOGUE.values()
    ]
    headers = ("name", "AP", "MB", "SHA-256 begins", "", "address")
    return tabulate(rows, headers, disable_numparse=True)
