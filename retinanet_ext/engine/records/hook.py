"""When a run writes its curves, also one that is killed and resumed, or whose disk is full."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from .writers import ResumableWriter

__all__ = ["WriterHook"]

logger = logging.getLogger(__name__)


class WriterHook(HookBase):
    """Detectron2's ``PeriodicWriter`` for runs that are killed and resumed.

    Writes every ``period`` iterations and after the last one. Its state in the checkpoint says up
    to where was written, so that the resumed run continues from just there, whether or not it wrote
    more in the meantime. A checkpoint is saved before this hook runs, so the resumed run first
    writes the line that was due then.

    A writer that fails with OSError (a full disk) is reported once; training continues, and it is
    tried again each time. To be registered in all processes; the main one writes.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int = 20):
        """
        Args:
            writers: Detectron2's; those that are a :class:`.writers.ResumableWriter` are started.
            period: iterations from one write to the next.
        """
        self._writers = list(writers) if comm.is_main_process() else []
        self._period = period
        self._written: int | None = None
        self._failing: set[int] = set()
        self._started = False

    def state_dict(self) -> dict[str, Any]:
        """The last iteration that was written."""
        return {"written": -1 if self._written is None else self._written}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        self._written = state["written"]

    def before_train(self) -> None:
        """Start the writers, and write what was due at the checkpoint."""
        start = self.trainer.start_iter
        if start == 0:
            self._written = None
        elif self._written is None:  # a checkpoint of another trainer
            self._written = start - 1
        for writer in self._writers:
            if isinstance(writer, ResumableWriter):
                self._call(writer, "start", self._written)
        self._started = True
        if start > 0 and self._due(start - 1):
            storage = self.trainer.storage
            storage.iter = start - 1
            self._write_all()
            self._written = start - 1
            storage.iter = start

    def after_step(self) -> None:
        """Write where it is due."""
        if self._due(self.trainer.iter):
            self._write_all()
            self._written = self.trainer.iter

    def after_train(self) -> None:
        """Write what is new, also after an error, and close the writers."""
        if not self._started:
            return
        # Not noted in the state: after an error, this is a line that comes at no period.
        if self._written != self.trainer.storage.iter:
            self._write_all()
        for writer in self._writers:
            self._call(writer, "close")

    def _due(self, iteration: int) -> bool:
        return (iteration + 1) % self._period == 0 or iteration == self.trainer.max_iter - 1

    def _write_all(self) -> None:
        for writer in self._writers:
            self._call(writer, "write")

    def _call(self, writer: EventWriter, method: str, *args: Any) -> None:
        name = getattr(writer, "path", type(writer).__name__)
        try:
            getattr(writer, method)(*args)
        except BrokenPipeError:  # nobody reads the console any more
            raise
        except OSError as error:
            if id(writer) not in self._failing:
                logger.error(
                    "cannot write %s: %s; training continues, and it is tried again every %d "
                    "iterations",
                    name,
                    error,
                    self._period,
                )
            self._failing.add(id(writer))
        else:
            if id(writer) in self._failing and method == "write":
                self._failing.discard(id(writer))
                logger.info("%s can be written again", name)
