"""What the readers of training say of a dataset that the checks here do not look at."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import UserError
from ..formats import Source, read_cached
from .findings import Fault

__all__ = ["reader_faults", "warnings_of_readers"]


OF_FORMATS = tuple(
    f"retinanet_ext.data.formats.{name}" for name in ("coco", "csv_rows", "voc", "yolo")
)


def reader_faults(source: Source | None, said: tuple[str, ...] = ()) -> list[Fault]:
    """Why training would stop at a dataset, or what it would leave out of it.

    The tolerant reader of check-data knows more faults than that of training, but none that is
    left should end a training later.

    Args:
        source: what training would read; None where it was read already.
        said: warnings of that reading.
    """
    faults = [Fault.of_dataset("reader_warning", text) for text in said]
    if source is not None:
        try:
            read_cached(source, "")
        except UserError as error:
            faults.append(Fault.of_dataset("not_readable", str(error)))
    return faults


@contextmanager
def warnings_of_readers() -> Iterator[list[str]]:
    """Collect what the readers of the formats warn of, beside logging it."""
    handler = _Collector()
    loggers = [logging.getLogger(name) for name in OF_FORMATS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
