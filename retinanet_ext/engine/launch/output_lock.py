"""One training at a time in ``OUTPUT_DIR``: a file there names the process that trains."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import time
from collections.abc import Collection, Mapping
from typing import Any

from ...errors import InputError
from ...files import write_text
from .restarts import Starts

__all__ = ["LOCK", "hold_output_dir", "release_output_dir"]

LOCK = "training.lock"
"""In ``OUTPUT_DIR`` while a training runs: its host, process and job."""

_held: dict[str, int] = {}  # path of a lock -> the process that holds it


def hold_output_dir(output_dir: str, starts: Starts | None = None, force: bool = False) -> str:
    """Take ``output_dir`` for this process; to be called in a job's main process only.

    A lock whose process has ended on this machine, or that an earlier start of the same job left,
    is taken over. Where the folder cannot be written there is no lock, and what writes there next
    says why.

    Args:
        output_dir: ``OUTPUT_DIR``; an address ("://") has no lock.
        starts: names of this job, see :func:`.restarts.job_starts`.
        force: whether to take the folder from whatever process has it.

    Returns:
        A sentence about the lock that was taken over; "" if there was none.

    Raises:
        InputError: another training runs there, as far as can be seen from here.
    """
    if "://" in output_dir:
        return ""
    starts = starts or Starts()
    path = os.path.abspath(os.path.join(output_dir, LOCK))
    found = _read(path)
    if found and not force and not _is_over(found, starts.earlier):
        raise InputError(
            f"OUTPUT_DIR '{output_dir}' is in use by a training, process {found['pid']} on "
            f"{found['host']} since {found['since']}; wait for its end, or set another OUTPUT_DIR; "
            "if that process is gone, add --force"
        )
    content = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "job": sorted(starts.own),
    }
    text = json.dumps(content) + "\n"
    try:
        os.makedirs(output_dir, exist_ok=True)
        if os.path.exists(path):
            write_text(path, text)
        else:
            _create(path, text)
    except FileExistsError:  # in this moment
        return hold_output_dir(output_dir, starts, force)
    except OSError:
        return ""
    if not _held:
        atexit.register(release_output_dir)
    _held[path] = os.getpid()
    if not found or _is_own(found):
        return ""
    return (
        f"OUTPUT_DIR '{output_dir}' was in use by process {found['pid']} on {found['host']} since "
        f"{found['since']}; this training takes its place"
    )


def release_output_dir() -> None:
    """Give up what :func:`hold_output_dir` took in this process, if nobody took it since."""
    for path, pid in list(_held.items()):
        del _held[path]
        found = _read(path)
        if pid == os.getpid() and found and _is_own(found):
            with contextlib.suppress(OSError):
                os.remove(path)


def _create(path: str, text: str) -> None:
    with open(path, "x") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:
            os.remove(path)
            raise


def _read(path: str) -> dict[str, Any]:
    """The content of a lock; {} without one, or where a kill or a full disk cut it short."""
    try:
        with open(path, errors="replace") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    known = isinstance(content, dict) and isinstance(content.get("pid"), int)
    return {"host": "?", "since": "?", **content} if known else {}


def _is_own(found: Mapping[str, Any]) -> bool:
    return found["host"] == socket.gethostname() and found["pid"] == os.getpid()


def _is_over(found: Mapping[str, Any], earlier: Collection[str]) -> bool:
    """Whether a lock may be taken over without asking."""
    job = found.get("job")
    if isinstance(job, list) and any(name in earlier for name in job):
        return True  # the launcher ends all of a start's processes before the next one
    if found["host"] != socket.gethostname():
        return False
    if _is_own(found):
        return True
    return not _runs(found["pid"], found.get("started"))


def _runs(pid: int, started: Any) -> bool:
    """Whether the process runs that had this number then, and no later one of that number."""
    try:
        os.kill(pid, 0)  # asks only
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    now = _start_of(pid)
    return now is None or started is None or now == started


def _start_of(pid: int) -> int | None:
    """When a process was started, in ticks since the machine was; None where that is not told."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if state == "Z" else int(fields[18])  # a zombie writes no more
