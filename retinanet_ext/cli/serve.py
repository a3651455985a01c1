"""``retinanet-ext serve``: a web page on which a model shows what it finds."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from detectron2.config import CfgNode

from ..errors import InputError
from ..inference import Predictor
from ..inference.build import describe_detector
from ..inference.exported import is_export
from ..serve import DetectionServer, Limits, listen
from ..serve.server import LOWEST_SCORE
from ..structures import detection_node
from .common import check_device, config_options
from .options.detections import add_precision, apply_precision
from .options.model import add_trailing_opts, check_one_model, load_model_cfg
from .options.numbers import number_above_0
from .options.tiles import add_tile_options, apply_tile_options

__all__ = ["add_parser", "run"]

LONGEST_END = 10.0
"""Seconds that a picture in work is waited for at the end."""

LOOPBACK_HINT = "only this machine reaches it; Ctrl-C ends it"


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[config_options(required=False, what="a config, in place of MODEL", opts=False)],
        description="Serve a web page: drop a picture on it, and see what the model finds.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        default="",
        metavar="MODEL",
        help="OUTPUT_DIR of a run, an exported file, or demo, a small model that comes along",
    )
    parser.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="with --config-file the checkpoint; with MODEL one of its checkpoints, or best "
        "(default: the final or newest one)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine only; 0.0.0.0: all of them)",
    )
    parser.add_argument(
        "--port", type=_port, default=8000, help="default: 8000; 0 takes one that is free"
    )
    parser.add_argument(
        "--max-mb",
        type=number_above_0(1e12, "a number above 0"),
        default=20.0,
        metavar="MB",
        help="largest file that is taken (default: 20)",
    )
    parser.add_argument(
        "--max-pixels",
        type=number_above_0(1e12, "a number above 0"),
        default=50e6,
        metavar="N",
        help="largest picture that is taken, width times height (default: 50e6)",
    )
    parser.add_argument(
        "--token",
        default="",
        help="that the page and programs must send; where other machines reach the page, one is "
        "made and printed if none is given",
    )
    add_precision(parser)
    add_tile_options(parser)
    add_trailing_opts(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, which end it with 0.

    Raises:
        UserError: names the option, its value and what can be done.
    """
    _check_model(args)
    limits = Limits(max_bytes=int(args.max_mb * 1e6), max_pixels=int(args.max_pixels))
    # First the port, which costs nothing to try, then the model.
    with listen(args.host, args.port, args.token, limits) as server, _ended_by_sigterm():
        cfg = _load_cfg(args)
        predictor = Predictor(cfg)
        server.use(predictor, _name(args))
        _print_where(server, args)
        if looks := describe_detector(cfg):
            print(looks, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nstopped", flush=True)
        server.turns.wait_until_idle(LONGEST_END)
        if warning := getattr(predictor.detector, "never_cut", ""):
            print(warning, file=sys.stderr)
    return 0


def _check_model(args: argparse.Namespace) -> None:
    check_one_model(args)
    if args.config_file and not args.weights:
        raise InputError("--config-file needs --weights, the model's checkpoint")
    check_device(args.device)


def _load_cfg(args: argparse.Namespace) -> CfgNode:
    cfg = load_model_cfg(args, args.model)
    node = detection_node(cfg)
    if node is not None:
        # An exported file has a threshold of its own, below which it finds nothing.
        of_file = node.SCORE_THRESH_TEST if is_export(cfg.MODEL.WEIGHTS) else 0.0
        node.SCORE_THRESH_TEST = max(LOWEST_SCORE, of_file)
    apply_precision(cfg, args)
    apply_tile_options(cfg, args)
    return cfg


def _name(args: argparse.Namespace) -> str:
    """What the page calls the model: no path, which would tell strangers about this machine."""
    return os.path.basename(os.path.abspath(args.model or args.weights))


def _print_where(server: DetectionServer, args: argparse.Namespace) -> None:
    access = server.access
    # After the # it stays in the browser: neither server logs nor other sites see it.
    print(f"{access.url}{f'#token={access.token}' if access.token else ''}", flush=True)
    if access.loopback:
        print(LOOPBACK_HINT, flush=True)
    else:
        print(
            f"warning: every machine that reaches {args.host} can open the page, and the "
            "connection is not encrypted; the model answers only those who have the token",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Within the block, SIGTERM ends the server as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _port(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 to 65535")
    return value
