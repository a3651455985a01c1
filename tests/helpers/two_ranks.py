"""Run a function in two connected processes, at the cost of a fork."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

TIMEOUT = 120  # seconds


def run_on_two_ranks(function: Callable[..., Any], *args: Any) -> list[Any]:
    """``function(rank, *args)`` in two processes of a gloo group; their results, by rank.

    Raises:
        AssertionError: with the traceback of a process that failed.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for rank in range(2):
            ours, theirs = context.Pipe()
            arguments = (theirs, f"file://{Path(folder) / 'store'}", rank, function, args)
            process = context.Process(target=_run, args=arguments, daemon=True)
            process.start()
            theirs.close()
            jobs.append((process, ours))
        try:
            answers = [pipe.recv() if pipe.poll(TIMEOUT) else "no answer" for _, pipe in jobs]
        finally:
            for process, _ in jobs:
                process.kill()
                process.join()
    for answer in answers:
        assert isinstance(answer, tuple), answer
    return [answer[0] for answer in answers]


def _run(
    pipe: Connection, store: str, rank: int, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)  # the threads of the parent do not exist here
    try:
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
        pipe.send((function(rank, *args),))
        dist.barrier()  # the other may still need this one
    except BaseException:
        pipe.send(traceback.format_exc())
