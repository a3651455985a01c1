"""What a training that an error ended still saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...data.loading.stream import TrainStream
from .hook import CheckpointHook

__all__ = ["save_after_error"]


def save_after_error(
    trainer: Any, checkpoints: CheckpointHook, step: Any, position: Mapping[str, int]
) -> None:
    """After an error in training, save what was reached, where that still can be done.

    Args:
        trainer: whose iteration, storage and data go back to the last whole step.
        checkpoints: what saves.
        step: the :class:`..step.train_step.TrainStep` that was interrupted.
        position: in the data, before that step; empty if there was none.
    """
    if trainer.iter < trainer.start_iter or not hasattr(trainer, "storage"):
        return
    if step.finished_iter < trainer.iter:  # the error came in the middle of a step
        if step.finished_iter < trainer.start_iter or not step.roll_back():
            return
        if position and isinstance(trainer.data_loader, TrainStream):
            trainer.data_loader.load_state_dict(dict(position))
        trainer.iter = trainer.storage.iter = step.finished_iter
    if not checkpoints.is_saved:
        checkpoints.save_now("after the error")
