"""Starts the process in which `worker.py` measures memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from .measure import Peak
from .settings import Settings

__all__ = ["OutOfMemory", "measure_in_own_process"]

_SIGKILL = -9
_ALLOCATION_FAILURES = ("MemoryError", "allocate memory", "out of memory")


class OutOfMemory(RuntimeError):
    """The work needs more memory than there is."""


def measure_in_own_process(name: str, side: str, settings: Settings) -> Peak:
    """Run :func:`retinanet_ext.benchmark.worker.measure` in a new process.

    Raises:
        OutOfMemory: the process could not allocate, or was killed.
        RuntimeError: it failed otherwise; with the last line that it wrote.
    """
    order = {"name": name, "side": side, "settings": settings.to_json()}
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.worker"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
    )
    if done.returncode == 0:
        return Peak(**json.loads(done.stdout.splitlines()[-1]))
    last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
    if done.returncode == _SIGKILL or any(words in last for words in _ALLOCATION_FAILURES):
        raise OutOfMemory(f"{name}, {side}: {last}")
    raise RuntimeError(
        f"the process that measures the memory of '{name}' for {side} stopped with code "
        f"{done.returncode}: {last}"
    )
