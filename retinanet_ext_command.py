"""The program ``retinanet-ext``: its help, and the choice of a command, without PyTorch.

This module stands beside the package because importing ``retinanet_ext`` registers its components
with Detectron2, which takes seconds: too long for a list of commands, or the word about a typing
error. Everything else is done by :func:`retinanet_ext.cli.main`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import select
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["COMMANDS", "PROG", "command_parser", "main", "until_reader_leaves"]

PROG = "retinanet-ext"
# Command -> its module in retinanet_ext.cli, and what it does.
COMMANDS = {
    "train": ("train", "train a detector, on a folder of data or by a config"),
    "evaluate": ("evaluate", "evaluate a checkpoint, or a file of detections without a model"),
    "report": ("report", "one page about what a detector does wrong, and what to try"),
    "predict": ("predict", "detections of pictures, videos or a camera: as json, csv or drawn"),
    "draw-detections": ("see.draw_detections", "draw a model's detections on images"),
    "serve": ("serve", "show a model's detections on a web page, for pictures dropped on it"),
    "export": ("export", "write a model as a file for ONNX Runtime, OpenVINO or PyTorch, verified"),
    "benchmark": (
        "benchmark",
        "measure time and memory against Detectron2's and torchvision's RetinaNet",
    ),
    "check-data": ("see.check_data", "find faults in annotations and images"),
    "show-data": ("see.show_data", "draw training samples as the model sees them"),
    "anchors": ("anchors", "show how well anchors cover a training set, or optimise them"),
    "weights": ("weights.catalogue", "list and fetch weights trained on COCO"),
    "convert": ("weights.convert", "turn weights of other toolkits into this one's, and back"),
    "replay-step": ("replay_step", "repeat a training step whose loss was not finite"),
}
SIGPIPE_EXIT = 128 + 13  # the signal has no name on Windows
STAND_INS = ("torch._dynamo", "torch._dynamo.utils")


def command_parser(version: str = "") -> argparse.ArgumentParser:
    """The program's parser without its commands; ``version`` is what ``--version`` shows."""
    parser = argparse.ArgumentParser(prog=PROG, description="RetinaNet for Detectron2")
    parser.add_argument("--version", action="version", version=version)
    return parser


class _OnDemand(types.ModuleType):
    """``torch._dynamo`` or a module of it: the real one is loaded when something is asked of it."""

    def __getattr__(self, name: str) -> Any:
        wants_module = name == "__path__" and self.__name__ == STAND_INS[0]  # one of the package's
        if name.startswith("__") and not wants_module:  # `inspect` looks at every module
            raise AttributeError(name)
        for module in STAND_INS:
            if isinstance(sys.modules.get(module), _OnDemand):
                del sys.modules[module]
        return getattr(importlib.import_module(self.__name__), name)


def _import_torchvision() -> None:
    """Import torchvision, as Detectron2 does, without the compiler of PyTorch.

    One module of torchvision takes one function of ``torch._dynamo`` for the case that someone
    compiles. That loads 700 modules, SymPy among them, and was half of the CPU time of a command's
    start. Here that function is loaded when it is called.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    import torch  # noqa: F401  (as a whole, before anything stands in for a part of it)

    if "torch._dynamo" in sys.modules:
        return
    for name in STAND_INS:
        sys.modules[name] = _OnDemand(name)
    utils: Any = sys.modules[STAND_INS[1]]
    utils.is_compile_supported = _is_compile_supported
    try:
        import torchvision  # noqa: F401
    finally:
        for name in STAND_INS:
            if isinstance(sys.modules.get(name), _OnDemand):
                del sys.modules[name]


def _is_compile_supported(device_type: str) -> bool:
    utils = importlib.import_module(STAND_INS[1])
    return bool(utils.is_compile_supported(device_type))


def until_reader_leaves(run: Callable[[], int]) -> int:
    """``run()``, which a reader of the standard output may end by closing it, as ``head`` does.

    Returns:
        What ``run`` returned or, where it returned 0 or was ended by that, 141: the status of
        programs that the signal of a broken pipe ends. Nothing is said.
    """
    code = 0
    try:
        try:
            code = run()
        except SystemExit:  # of argparse, after its help
            _flush()
            raise
        _flush()
        return code
    except BrokenPipeError as error:
        if error.filename is not None or not _reader_is_gone():
            raise
        return code or SIGPIPE_EXIT


def _flush() -> None:
    if sys.stdout is not None:  # there is none without a console on Windows
        sys.stdout.flush()


def _reader_is_gone() -> bool:
    """Whether nobody reads the standard output any more, such as ``head`` after its last line.

    If so, what is still to be written goes nowhere, also at the end of the process.
    """
    if not hasattr(select, "poll"):  # Windows, whose pipes do not tell
        return False
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # not the process's own
        return False
    asked = select.poll()
    asked.register(number, select.POLLERR)
    if not any(event & select.POLLERR for _, event in asked.poll(0)):
        return False
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), number)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the words after the program's name; those of this process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return until_reader_leaves(lambda: _run(words, argv is None))


def _run(words: list[str], own_process: bool) -> int:
    if words and (words[0] in COMMANDS or words[0] == "--version"):
        _import_torchvision()
        from retinanet_ext.cli import main as run_command

        return run_command(None if own_process else words)
    parser = command_parser()
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, what) in COMMANDS.items():
        subparsers.add_parser(name, help=what)
    parser.parse_args(words)  # shows the help, or what is wrong, and exits
    return 2


if __name__ == "__main__":
    sys.exit(main())
