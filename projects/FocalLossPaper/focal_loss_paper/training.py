"""Trains runs in child processes, a few at a time, so that any of them may fail or be killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from .runs import (
    CONSOLE,
    DIVERGED,
    FINISHED,
    INTERRUPTED,
    RESULT,
    TERMINAL,
    Run,
    classify_outcome,
    discard_training_state,
    write_config,
    write_json,
)

POLL = 0.2  # seconds between looks at the children
PATIENCE = 10.0  # seconds a child has to end after SIGTERM


@dataclass
class Child:
    """A run that is being trained."""

    run: Run
    process: subprocess.Popen
    console: IO[bytes]
    console_start: int  # where the output of this attempt begins
    lock: int  # file descriptor
    started: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def output(self) -> str:
        with open(self.console.name, "rb") as file:
            file.seek(self.console_start)
            return file.read().decode(errors="replace")


def train_runs(
    runs: Sequence[Run],
    command: Callable[[Run], list[str]],
    jobs: int = 1,
    say: Callable[[str], None] = print,
    on_result: Callable[[], None] = lambda: None,
) -> int:
    """Train what is not over yet; each run's result.json says what became of it.

    A run that was interrupted or failed before continues from its last checkpoint. Ctrl-C (or
    SIGTERM) ends the children and raises KeyboardInterrupt; the next call continues.

    Args:
        runs: in the order to train them.
        command: the child process of a run; finds its config file in ``run.folder / "run.yaml"``.
        jobs: children at a time; each gets an equal share of the cores.
        say: prints a line.
        on_result: called after each run that ended.

    Returns:
        The number of runs that failed.
    """
    queue = [run for run in runs if run.result().get("status") not in TERMINAL]
    skipped = len(runs) - len(queue)
    say(f"{len(queue)} to train, {skipped} done before")
    waiting, children = list(queue), list[Child]()
    trained: list[float] = []  # minutes
    ended = failed = 0
    with _sigterm_as_interrupt():
        try:
            while waiting or children:
                while waiting and len(children) < jobs:
                    child = _start(waiting.pop(0), command, jobs, say)
                    if child:
                        children.append(child)
                    else:
                        ended += 1
                for child in [c for c in children if c.process.poll() is not None]:
                    children.remove(child)
                    result = _finish(child)
                    ended += 1
                    failed += result["status"] not in TERMINAL
                    trained.append(child.seconds / 60)
                    left = (len(queue) - ended) * sum(trained) / len(trained) / jobs
                    say(_line(child.run, result, f"{ended}/{len(queue)}", left))
                    on_result()
                time.sleep(POLL if children else 0)
        except BaseException:
            with ignore_signals():  # an impatient second Ctrl-C would leave children behind
                _stop(children)
            raise
    return failed


def _start(
    run: Run, command: Callable[[Run], list[str]], jobs: int, say: Callable[[str], None]
) -> Child | None:
    """Start the child of a run; None where another process trains it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    # The child holds the lock too: it may outlive a parent that was killed.
    lock = os.open(run.folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        say(f"{run.name}: another process trains it; run again when that one has ended")
        return None
    write_config(run)
    console = open(run.folder / CONSOLE, "ab")  # noqa: SIM115 (open as long as the child runs)
    start = console.tell()  # now: the child shares the file's position
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    process = subprocess.Popen(
        command(run),
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=subprocess.STDOUT,
        env={"OMP_NUM_THREADS": threads, **os.environ, "PYTHONUNBUFFERED": "1"},
        # A group of its own: Ctrl-C reaches this process alone, which then ends the group.
        start_new_session=True,
        pass_fds=(lock,),
    )
    return Child(run, process, console, start, lock, time.monotonic())


def _finish(child: Child) -> dict[str, Any]:
    """Write result.json; only then delete checkpoints, which a kill in between leaves behind."""
    result = classify_outcome(child.run, child.process.returncode, child.output())
    _write_result(child, result)
    if result["status"] in TERMINAL:
        discard_training_state(child.run, keep_model=result["status"] == FINISHED)
    _close(child)
    return result


def _write_result(child: Child, result: dict[str, Any]) -> None:
    result["seconds"] = child.run.result().get("seconds", 0.0) + child.seconds
    write_json(child.run.folder / RESULT, result)


def _stop(children: Sequence[Child]) -> None:
    """End the children and all they started."""
    for child in children:
        _signal(child, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
        _signal(child, signal.SIGKILL)  # also what the child has left in its group
        child.process.wait()
        named = {"config": child.run.config, "seed": child.run.seed}
        iterations = child.run.iterations
        _write_result(child, {**named, "iterations": iterations, "status": INTERRUPTED})
        _close(child)


def _signal(child: Child, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, number)


def _close(child: Child) -> None:
    child.console.close()
    os.close(child.lock)


@contextlib.contextmanager
def ignore_signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(run: Run, result: dict[str, Any], count: str, minutes_left: float) -> str:
    status = result["status"]
    if status == FINISHED:
        name = "AR@1000" if "AR@1000" in result["metrics"] else "AP"  # of proposals only
        words = f"{name} {result['metrics'].get(name, float('nan')):.1f}"
    elif status == DIVERGED:
        words = "diverged"
    else:
        words = f"failed, the next call tries again ({result['reason']})"
    took = f"in {result['seconds'] / 60:.1f} min"
    return f"[{count}] {run.name}: {words} {took}; about {minutes_left:.0f} min left"
