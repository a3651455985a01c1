"""What a run shows while it works: one line of progress in training, a bar in evaluation."""

from __future__ import annotations

import datetime
import logging
import sys
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage
from tqdm import tqdm

from ..console import PROGRESS, end_progress
from ..data.loading.wrapped_loader import WrappedLoader

logger = logging.getLogger(__name__)

ETA_WINDOW = 200  # iterations; multi-scale training makes single ones uneven
DETECTRON2_INFERENCE_LOGGER = "detectron2.evaluation.evaluator"


class ProgressLine(EventWriter):
    """Log training progress on one line.

    For example ``iter 120/400 (30%)  eta 0:03:12  loss 0.812 (cls 0.42 box_reg 0.39)  lr 1.0e-03
    12.3 img/s  data 3%``: losses are medians and the speed a mean over the last ``window``
    iterations, the remaining time follows a longer mean, ``data`` is the fraction of the time spent
    waiting for images. With CUDA, the peak memory comes last. The scalars ``eta_seconds`` and
    ``images_per_second`` go to the other writers.
    """

    def __init__(self, max_iter: int, images_per_iter: int, window: int = 20):
        """
        Args:
            max_iter: iteration at which training ends.
            images_per_iter: images per iteration over all processes (``SOLVER.IMS_PER_BATCH``).
            window: iterations to average over.
        """
        self._max_iter = max_iter
        self._images_per_iter = images_per_iter
        self._window = window

    def write(self) -> None:
        """Log the line; after the last iteration there is nothing left to say."""
        storage = get_event_storage()
        if storage.iter < self._max_iter:
            logger.info("%s", self.format_line(storage), extra=PROGRESS)

    def close(self) -> None:
        """What is printed next begins on a line of its own."""
        end_progress()

    def format_line(self, storage: EventStorage) -> str:
        """Return the line for the iteration that ``storage`` has just finished."""
        done = storage.iter + 1
        parts = [f"iter {done}/{self._max_iter} ({100 * done // self._max_iter}%)"]
        seconds = self._mean(storage, "time", self._window)
        if seconds:
            parts.append(f"eta {self._eta(storage)}")
        parts += [self._losses(storage), self._learning_rate(storage)]
        if seconds:
            parts += self._speed(storage, seconds)
        if torch.cuda.is_available():
            parts.append(f"mem {torch.cuda.max_memory_allocated() / 2**20:.0f} MB")
        return "  ".join(part for part in parts if part)

    def _eta(self, storage: EventStorage) -> datetime.timedelta:
        left = self._mean(storage, "time", ETA_WINDOW) * (self._max_iter - storage.iter - 1)
        storage.put_scalar("eta_seconds", left, smoothing_hint=False)
        return datetime.timedelta(seconds=round(left))

    def _losses(self, storage: EventStorage) -> str:
        names = [name for name in storage.histories() if name.startswith("loss_")]
        parts = [f"{name[len('loss_') :]} {self._median(storage, name):.3g}" for name in names]
        if "total_loss" not in storage.histories():
            return " ".join(parts)
        total = f"loss {self._median(storage, 'total_loss'):.3g}"
        return f"{total} ({' '.join(parts)})" if parts else total

    def _learning_rate(self, storage: EventStorage) -> str:
        known = "lr" in storage.histories()
        return f"lr {storage.history('lr').latest():.1e}" if known else ""

    def _speed(self, storage: EventStorage, seconds: float) -> list[str]:
        rate = self._images_per_iter / seconds
        storage.put_scalar("images_per_second", rate, smoothing_hint=False)
        waiting = self._mean(storage, "data_time", self._window)
        return [f"{rate:.3g} img/s", f"data {100 * waiting / seconds:.0f}%"]

    def _median(self, storage: EventStorage, name: str) -> float:
        return storage.history(name).median(storage.count_samples(name, self._window))

    def _mean(self, storage: EventStorage, name: str, window: int) -> float:
        """Mean over the last ``window`` iterations; 0 before the first value."""
        if name not in storage.histories():
            return 0.0
        return storage.history(name).avg(storage.count_samples(name, window))


class BarOverLoader(WrappedLoader):
    """A data loader that shows a progress bar while it is iterated; in all else that loader.

    Detectron2's own log lines about inference progress are held back meanwhile.
    """

    def __init__(self, loader: Any, title: str):
        super().__init__(loader)
        self._title = title

    def __iter__(self) -> Iterator[Any]:
        inference_logger = logging.getLogger(DETECTRON2_INFERENCE_LOGGER)
        inference_logger.addFilter(_not_inference_progress)
        try:
            yield from tqdm(self._loader, desc=self._title, unit="batch", leave=False)
        finally:
            inference_logger.removeFilter(_not_inference_progress)


def _not_inference_progress(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Inference done")


def with_bar(loader: Any, title: str) -> Any:
    """Return ``loader`` with a progress bar in a main process on a terminal, else as it is."""
    on_terminal = comm.is_main_process() and sys.stderr.isatty()
    return BarOverLoader(loader, title) if on_terminal else loader
