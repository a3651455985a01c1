#!/usr/bin/env python
"""Train the rows of the focal loss paper's tables and lay the results beside the published ones.

python projects/FocalLossPaper/reproduce.py --table 1b --dataset quickstart --seeds 2
python projects/FocalLossPaper/reproduce.py --table all --list
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from focal_loss_paper.report import Report, publish
from focal_loss_paper.rows import ROOT, Setting, Table, default_base, load_tables
from focal_loss_paper.runs import Run, RunIndex
from focal_loss_paper.training import train_runs

from retinanet_ext.cli.common import debug_options, run_guarded
from retinanet_ext.data.datasets.register import register_builtin_datasets
from retinanet_ext.errors import MissingFileError

SET_BY_OPTIONS = {
    "SEED": "--seeds",
    "OUTPUT_DIR": "--output-dir",
    "SOLVER.MAX_ITER": "--iters",
    "DATASETS.TRAIN": "--dataset",
    "DATASETS.TEST": "--dataset",
}


def parse_args(argv: list[str] | None, names: list[str]) -> argparse.Namespace:
    """Read the command line; ``names`` are the tables there are."""
    first, *commands = (__doc__ or "").strip().splitlines()
    parser = argparse.ArgumentParser(
        description=first,
        epilog="\n".join(commands).strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[debug_options()],
    )
    choices = [*names, "all"]
    parser.add_argument(
        "--table",
        action="append",
        choices=choices,
        help="may be given several times (default: all)",
    )
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="NAME",
        help="only this row, such as 1b_gamma2; may be given several times",
    )
    parser.add_argument(
        "--dataset",
        default="quickstart",
        metavar="NAME",
        help="quickstart (default), quickstart_hard, coco_2017, or any registered NAME_train and "
        "NAME_val",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs per row (default: 3)")
    parser.add_argument("--iters", type=int, metavar="N", help="iterations (default: the base's)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--output-dir", type=Path, default=Path("output/FocalLossPaper"))
    parser.add_argument("--list", action="store_true", help="show what is done and what is not")
    parser.add_argument(
        "--report-only", action="store_true", help="write tables and figures, train nothing"
    )
    parser.add_argument(
        "--publish", action="store_true", help="copy tables and figures into the project's results/"
    )
    parser.add_argument(
        "--base-config",
        type=Path,
        metavar="FILE",
        help="config that the rows' keys are merged into (default: one made for the dataset, or "
        "else the paper's setting)",
    )
    parser.add_argument(
        "--train-net",
        type=Path,
        default=ROOT / "train_net.py",
        metavar="FILE",
        help="your copy of train_net.py, which registers your datasets at its top",
    )
    parser.add_argument("--num-gpus", type=int, metavar="N", help="of each run, for train_net.py")
    parser.add_argument("--data-root", metavar="DIR", help="as for train_net.py")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ... for every row")
    args = parser.parse_args(argv)
    args.table = names if not args.table or "all" in args.table else args.table
    for option in ("seeds", "jobs"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} must be at least 1, got {getattr(args, option)}")
    for key in args.opts[::2]:
        if key in SET_BY_OPTIONS:
            parser.error(f"{key} differs from run to run; it is set by {SET_BY_OPTIONS[key]}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks for; the exit status is 2 after a user's mistake."""
    tables = load_tables()
    args = parse_args(argv, list(tables))
    try:
        return run_guarded(lambda: reproduce(args, tables), args.debug)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        return 130


def reproduce(args: argparse.Namespace, tables: dict[str, Table]) -> int:
    """Train, or list, and report; the exit status is 1 if a run failed."""
    _register_datasets(args)
    base = args.base_config or default_base(args.dataset)
    book = RunIndex(
        Setting(args.dataset, base, args.iters, tuple(args.opts)), args.output_dir / args.dataset
    )
    wanted = [table for name, table in tables.items() if name in args.table]
    runs = book.runs(wanted, args.seeds, args.row)
    if args.list:
        for run in runs:
            print(f"{run.result().get('status', 'not run'):12} {run.name:32} {run.folder}")
        return 0
    folder = args.output_dir / args.dataset
    report = Report(tables, book, folder)
    failed = 0
    try:
        if not args.report_only:
            failed = train_runs(
                runs,
                lambda run: child_command(run, args),
                jobs=args.jobs,
                say=lambda text: print(text, flush=True),
                on_result=report.update,
            )
    finally:
        report.update(last=True)
    print(f"{folder / 'tables.md'}, results.json and figures are written")
    if args.publish:
        print(f"copied to {publish(folder, args.dataset)}")
    return 1 if failed else 0


def child_command(run: Run, args: argparse.Namespace) -> list[str]:
    """The process that trains and evaluates ``run``, or continues with it."""
    command = [sys.executable, str(args.train_net), "--config-file", str(run.folder / "run.yaml")]
    if args.num_gpus is not None:
        command += ["--num-gpus", str(args.num_gpus)]
    if args.data_root:
        command += ["--data-root", args.data_root]
    return [*command, "--resume"]


def _register_datasets(args: argparse.Namespace) -> None:
    """Register what the children will; number of classes and files are looked up here too."""
    register_builtin_datasets(args.data_root)
    if not args.train_net.is_file():
        raise MissingFileError(f"--train-net is '{args.train_net}', which does not exist")
    if args.train_net.resolve() == ROOT / "train_net.py":
        return
    spec = importlib.util.spec_from_file_location("users_train_net", os.fspath(args.train_net))
    assert spec is not None and spec.loader is not None, f"{args.train_net} is no Python file"
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


if __name__ == "__main__":
    sys.exit(main())
