#!/usr/bin/env python
"""Train and evaluate one of the two detectors that are no Detectron2 models; compare.py calls it.

python projects/Ancestors/train_own.py viola_jones --dataset quickstart --minutes 5 --output-dir DIR
python projects/Ancestors/train_own.py overfeat --dataset bccd --minutes 5 --output-dir DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1])]

from ancestors.own import OWN, evaluate_own, train_own  # noqa: E402

from retinanet_ext.cli.common import debug_options, run_guarded  # noqa: E402
from retinanet_ext.data.datasets.register import register_builtin_datasets  # noqa: E402
from retinanet_ext.engine.job import start_logging  # noqa: E402
from retinanet_ext.engine.user_modules import import_modules  # noqa: E402


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip().splitlines()[0], parents=[debug_options()]
    )
    parser.add_argument("system", choices=OWN)
    parser.add_argument("--dataset", default="quickstart", help="NAME of NAME_train and NAME_val")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training (default: 5)")
    parser.add_argument("--iters", type=int, help="steps, or stages, in place of --minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--data-root", metavar="DIR", help="as for train_net.py")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE")
    args = parser.parse_args(argv)
    if args.minutes <= 0 or (args.iters is not None and args.iters < 1):
        parser.error("--minutes must be above 0 and --iters at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return run_guarded(lambda: train(args), args.debug)


def train(args: argparse.Namespace) -> int:
    register_builtin_datasets(args.data_root)
    import_modules(args.imports)
    start_logging(str(args.output_dir))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = train_own(
        args.system,
        args.output_dir,
        f"{args.dataset}_train",
        args.minutes,
        args.seed,
        args.iters,
        device,
        say=lambda text: print(text, flush=True),
    )
    evaluate_own(model, args.output_dir, f"{args.dataset}_val")
    return 0


if __name__ == "__main__":
    sys.exit(main())
