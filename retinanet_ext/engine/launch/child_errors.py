"""Errors for the user to read, from the processes that ``launch`` starts to the one that waits.

``torch.multiprocessing`` hands over the text of a traceback only. The kind of error and its message
therefore travel separately, through a queue.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch.multiprocessing import ProcessRaisedException

from ...compat import forget_process_groups
from ...errors import TrainingFailed, UserError, shown_error

__all__ = ["ChildReports", "leave_group"]

MOST_CHARACTERS = 2000
"""Of a message. The queue is a pipe that is read when all processes have ended: what all of them
put into it must fit."""

Main = Callable[[argparse.Namespace], Any]
Report = tuple[int, type[UserError] | type[TrainingFailed] | type[BrokenPipeError], str]


class ChildReports:
    """What the processes of one launch report of their ends."""

    def __init__(self) -> None:
        self._queue = mp.get_context("spawn").SimpleQueue()

    def reporting(self, main: Main) -> Main:
        """``main`` for a started process: a user's error, or a failed training, is reported."""
        return functools.partial(_run, main, self._queue)

    @contextlib.contextmanager
    def raised_here(self) -> Iterator[None]:
        """Within the block, a started process's failure is raised as what it reported.

        Raises:
            UserError, TrainingFailed: with its message.
            BrokenPipeError: nobody reads the console any more.
            ProcessRaisedException: it reported nothing, so it has a bug.
        """
        try:
            yield
        except ProcessRaisedException as failure:
            report = self._choose(failure.error_index)
            if report is None:
                raise
            _, kind, message = report
            raise kind(message) from failure
        finally:
            self._queue.close()

    def _choose(self, failed: int) -> Report | None:
        """The report of the process that failed, else that of another, which says why.

        One that lost its peers may be seen to fail before the one that left them.
        """
        reports: list[Report] = []
        while not self._queue.empty():
            reports.append(self._queue.get())
        own = [report for report in reports if report[0] == failed]
        return next(iter(own + [r for r in reports if r[1] is not TrainingFailed]), None)


def _run(main: Main, queue: Any, args: argparse.Namespace) -> Any:
    try:
        result = main(args)
    except SystemExit:  # after a signal, with everything saved
        leave_group()
        raise
    except BrokenPipeError as error:
        queue.put((comm.get_local_rank(), BrokenPipeError, str(error)))
        raise
    except Exception as error:
        shown = shown_error(error)
        if shown is not None:
            kind = UserError if isinstance(shown, UserError) else TrainingFailed
            queue.put((comm.get_local_rank(), kind, str(shown)[:MOST_CHARACTERS]))
        raise
    leave_group()
    return result


def leave_group() -> None:
    """Leave the process group, if this process is in one, before the interpreter ends.

    Threads of gloo that are still there then abort the process now and then ("terminate called
    without an active exception"), and its parent sees a job that did all of its work as killed by
    SIGABRT.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        forget_process_groups()  # Detectron2 still holds the groups, and so their threads
