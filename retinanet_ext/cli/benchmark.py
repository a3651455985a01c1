"""``retinanet-ext benchmark``: this package against Detectron2 and torchvision, side by side."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from ..benchmark import (
    Benchmark,
    Disagreement,
    Settings,
    as_json,
    describe_run,
    run_tasks,
    table,
    task_names,
)
from ..benchmark.plot import check_matplotlib, draw_ratios
from ..benchmark.precision import PRECISIONS, check_precision
from ..benchmark.settings import LVIS_CLASSES
from ..config import validate_cfg
from ..engine.setup import resolve_device
from ..errors import InputError, did_you_mean
from ..files import dump_json
from ..modeling.speedups.settings import best_autocast
from ..structures import RETINANET_ARCHITECTURES
from .common import config_options, load_cfg, pairs
from .options.numbers import positive_int
from .outputs import check_writable

__all__ = ["add_parser", "run"]

# The paper's RetinaNet with ResNet-50, where Detectron2's defaults are something else.
DEFAULT_KEYS = [
    *("MODEL.META_ARCHITECTURE", "RetinaNetExt"),
    *("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"),
    *("MODEL.RESNETS.OUT_FEATURES", "['res3', 'res4', 'res5']"),
    *("MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"),
    *("MODEL.ANCHOR_GENERATOR.NAME", "RetinaNetAnchorGenerator"),
    *("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", "0.0"),
]
DEFAULT_NAME = "RetinaNet R50-FPN"
INTERRUPTED = 130  # the shell's code for Ctrl-C


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[
            config_options(required=False, what=f"the model's config (default: {DEFAULT_NAME})")
        ],
        description="Run the same weights and the same inputs through Detectron2's RetinaNet and "
        "this package's, check that both give the same numbers, and print how their time and "
        "memory compare. KEY VALUE pairs at the end change the config of both.",
    )
    parser.add_argument(
        "--size", type=_size, default=(800, 1216), metavar="HxW", help="default: 800x1216"
    )
    parser.add_argument(
        "--batch", type=positive_int, default=2, metavar="N", help="of a training step (2)"
    )
    parser.add_argument(
        "--classes",
        type=positive_int,
        metavar="K",
        help=f"default: the config's, and {LVIS_CLASSES:,} for many-classes",
    )
    parser.add_argument(
        "--gt", type=positive_int, default=20, metavar="M", help="objects per image (20)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="measure only these: loss, labelling, decode, "
        "training-step, training-loop, inference, evaluation, many-classes, ...",
    )
    parser.add_argument(
        "--repeats", type=positive_int, metavar="N", help="rounds (default: by their duration)"
    )
    parser.add_argument(
        "--images", type=positive_int, default=500, metavar="N", help="of the evaluation (500)"
    )
    parser.add_argument(
        "--precision",
        metavar="NAME",
        help=f"of both sides: {', '.join(PRECISIONS)} (default: PyTorch's own, float32 on the CPU "
        "and tf32 on a GPU)",
    )
    parser.add_argument("--no-torchvision", action="store_true", help="leave torchvision out")
    parser.add_argument(
        "--no-engines", action="store_true", help="leave ONNX Runtime and OpenVINO out"
    )
    parser.add_argument("--json", metavar="FILE", help="write every sample")
    parser.add_argument("--plot", metavar="FILE", help="write a bar chart, .png or .svg")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 where both sides give different numbers.

    Raises:
        UserError: names the option, its value and what can be done.
    """
    _check_outputs(args)
    cfg = _load_cfg(args)
    names = _chosen_tasks(args.only or [], task_names(cfg))
    precision = args.precision or ("tf32" if cfg.MODEL.DEVICE.startswith("cuda") else "float32")
    check_precision(precision, cfg.MODEL.DEVICE)
    settings = Settings(
        config=cfg.dump(),
        size=args.size,
        batch=args.batch,
        num_gt=args.gt,
        images=args.images,
        repeats=args.repeats,
        threads=torch.get_num_threads(),
        precision=precision,
        torchvision=not args.no_torchvision,
        engines=not args.no_engines,
        many_classes=args.classes or LVIS_CLASSES,
        imports=tuple(args.imports),
    )
    bench = Benchmark(settings, say=_say)
    config_name = args.config_file or DEFAULT_NAME
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"torch\.meshgrid", UserWarning)  # Detectron2's
        code = _measure(bench, names)
    if code != 1:
        _say("\n" + table(bench, config_name))
        _write(args, bench, config_name, complete=code == 0)
    return code


def _measure(bench: Benchmark, names: Sequence[str]) -> int:
    try:
        run_tasks(bench, names)
    except Disagreement as error:
        _say(f"DISAGREEMENT, so nothing is compared: {error}")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; what was measured until then:")
        return INTERRUPTED
    return 0


def _write(args: argparse.Namespace, bench: Benchmark, config_name: str, complete: bool) -> None:
    for path in filter(None, (args.json, args.plot)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    if args.json:
        content = as_json(bench, config_name, complete)
        Path(args.json).write_text(dump_json(content, indent=1) + "\n")
        _say(f"wrote {args.json}")
    if args.plot and any(row.ratio is not None for row in bench.rows):
        draw_ratios(bench.rows, Path(args.plot), describe_run(bench, Path(config_name).stem))
        _say(f"wrote {args.plot}")


def _load_cfg(args: argparse.Namespace) -> CfgNode:
    cfg = load_cfg(args, defaults=() if args.config_file else DEFAULT_KEYS)
    if cfg.MODEL.META_ARCHITECTURE not in RETINANET_ARCHITECTURES:
        raise InputError(
            f"MODEL.META_ARCHITECTURE is '{cfg.MODEL.META_ARCHITECTURE}', but the benchmark "
            f"compares {' and '.join(RETINANET_ARCHITECTURES)}; give the config of one of them"
        )
    weights = cfg.MODEL.WEIGHTS
    if weights and "MODEL.WEIGHTS" not in pairs(args.opts)[::2]:
        cfg.MODEL.WEIGHTS = ""
        _say(
            f"random weights: {weights} of the config is left out; to load a file, put "
            "MODEL.WEIGHTS FILE at the end of the command"
        )
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    if args.classes is not None:
        cfg.MODEL.RETINANET.NUM_CLASSES = args.classes
    cfg.VIS_PERIOD = 0
    cfg.SOLVER.AMP.ENABLED = False  # the trainer's, which takes no part
    if cfg.MODEL.SPEEDUPS.AUTOCAST == "auto":
        # Both sides have to give the same numbers, so it has a row of its own, inference's.
        cfg.MODEL.SPEEDUPS.AUTOCAST = ""
        best = best_autocast(torch.device(cfg.MODEL.DEVICE)) or "float32"
        _say(f"AUTOCAST auto is {best} here: a row of its own in inference, float32 elsewhere")
    validate_cfg(cfg)
    resolve_device(cfg)
    return cfg


def _chosen_tasks(only: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in only:
        if name not in known:
            if "." in name:
                names = " ".join(only[: only.index(name)]) or "NAME"
                raise InputError(
                    f"write -- before the KEY VALUE pairs: --only {names} -- {name} ..."
                )
            raise InputError(
                f"--only is '{name}', which is nothing to measure.{did_you_mean(name, known)} "
                f"There are {', '.join(known)}"
            )
    return [name for name in known if not only or name in only]


def _check_outputs(args: argparse.Namespace) -> None:
    if args.plot:
        if Path(args.plot).suffix.lower() not in (".png", ".svg"):
            raise InputError(f"--plot is '{args.plot}'; end it in .png or .svg")
        check_matplotlib()
    for option, name in (("--json", args.json), ("--plot", args.plot)):
        if name:
            check_writable(option, name)


def _say(line: str) -> None:
    print(line, flush=True)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    sides = tuple(int(side) for side in match.groups()) if match else (0, 0)
    if min(sides) < 32:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no size; write height x width in pixels, 32 or more, such as 800x1216"
        )
    return sides[0], sides[1]
