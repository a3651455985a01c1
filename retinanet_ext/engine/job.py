"""The process that a run is in: where its log lines go, how many cores it takes."""

from __future__ import annotations

import logging
import os
import sys

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..console import ConsoleHandler, WithoutColors, end_with_reader, wants_colors

__all__ = ["ensure_logging", "share_cpu_cores", "start_logging"]

LOGGERS = ("retinanet_ext", "detectron2", "fvcore")
PYTHON_WARNINGS = "py.warnings"  # the logger of logging.captureWarnings


def start_logging(output_dir: str | None, verbose: bool = False) -> None:
    """Send the log lines of this package, Detectron2 and fvcore to ``log.txt`` and the console.

    ``log.txt`` gets all of them, and Python's warnings. The console of the main process shows what
    :mod:`retinanet_ext.console` says, or with ``verbose`` all of it as Detectron2 shows it. Colour
    codes go to terminals only, and nowhere where ``NO_COLOR`` is set.

    Args:
        output_dir: folder of ``log.txt``, of processes other than the main one ``log.txt.rank<n>``;
            None writes no file.
        verbose: see above.
    """
    rank = comm.get_rank()
    setup_logger(output_dir, distributed_rank=rank, name="retinanet_ext", abbrev_name="rnx")
    # In the words of default_setup: its own calls then change nothing.
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    setup_logger(output_dir, distributed_rank=rank)
    console = ConsoleHandler() if rank == 0 and not verbose else None
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            if isinstance(handler, ConsoleHandler):  # of an earlier run in this process
                logger.removeHandler(handler)
            else:
                _adapt(handler, verbose)
        if console is not None:
            logger.addHandler(console)
    known = [handler for name in LOGGERS for handler in logging.getLogger(name).handlers]
    end_with_reader(handler for handler in known if _is_console(handler))
    if not verbose:  # Detectron2's environment table looks for CUDA's compiler, which warns
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    logging.captureWarnings(not verbose)
    warnings = logging.getLogger(PYTHON_WARNINGS)
    warnings.propagate = False
    warnings.handlers[:] = [
        x for x in logging.getLogger(LOGGERS[0]).handlers if not _is_console(x)
    ] or [logging.NullHandler()]


def ensure_logging() -> None:
    """Show log lines, as Detectron2 does, also in a script that set up no logging."""
    for name in ("detectron2", "retinanet_ext"):
        if not logging.getLogger(name).isEnabledFor(logging.INFO):
            setup_logger(name=name)


def share_cpu_cores(cfg: CfgNode) -> None:
    """Split the cores among the processes of a CPU job, which otherwise each start one per core."""
    processes = comm.get_local_size()
    if cfg.MODEL.DEVICE == "cpu" and processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _adapt(handler: logging.Handler, verbose: bool) -> None:
    """Silence one of Detectron2's handlers if it is for the console; keep colours to terminals."""
    on_console = _is_console(handler)
    if not on_console:
        _tell_once(handler)
    if on_console:
        handler.setLevel(logging.DEBUG if verbose else logging.CRITICAL + 1)
    if not (on_console and wants_colors()) and not isinstance(handler.formatter, WithoutColors):
        handler.setFormatter(WithoutColors(handler.formatter))


def _tell_once(handler: logging.Handler) -> None:
    """Say once that a log file cannot be written, not with a traceback for each of its lines."""
    told: list[str] = []

    def handle_error(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logging.Handler.handleError(handler, record)
        elif not told and sys.stderr is not None:
            told.append(str(error))
            name = getattr(handler, "baseFilename", None) or getattr(
                getattr(handler, "stream", None), "name", "the log file"
            )
            reason = error.strerror or error
            print(f"{name} cannot be written: {reason}; log lines are lost", file=sys.stderr)

    handler.handleError = handle_error  # type: ignore[method-assign]


def _is_console(handler: logging.Handler) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, ConsoleHandler) or getattr(handler, "stream", None) in streams
