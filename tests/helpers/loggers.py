"""The loggers that Detectron2's ``setup_logger`` changes for the whole process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def kept_loggers() -> Iterator[list[logging.Logger]]:
    """Give these loggers, and undo afterwards what became of handlers, level and propagation."""
    loggers = [logging.getLogger(name) for name in ("retinanet_ext", "detectron2", "fvcore")]
    before = [(log.handlers[:], log.level, log.propagate) for log in loggers]
    yield loggers
    for log, (handlers, level, propagate) in zip(loggers, before, strict=True):
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)
