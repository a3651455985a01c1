"""Training processes that start at once: forked from one that has imported everything.

Run as a program, it reads one json line per job from its input, ``{"argv": [...], "environments":
[{...}, ...], "log": "file"}``, forks a process for each environment that runs ``train_net.py``'s
``run(argv)``, and answers with a line of their process ids, then, when all have ended, with a line
of their exit codes (negative: the signal that killed one).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class TrainingServer:
    """Starts training processes, which are real ones and can be killed."""

    def __init__(self, log: Path, **environment: str):
        """
        Args:
            log: file that gets what the processes print.
            environment: variables of all processes.
        """
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.forked_training"],
            cwd=ROOT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, argv: Sequence[str], environments: Sequence[dict[str, str]] = ({},)) -> Job:
        """Start one process per environment; all run ``train_net.py`` with ``argv``."""
        job = {"argv": list(argv), "environments": list(environments), "log": str(self.log)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Job(self, self.read())

    def read(self) -> Any:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server died; see {self.log}"
        return json.loads(line)

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


class Job:
    """The processes of one run."""

    def __init__(self, server: TrainingServer, pids: list[int]):
        self._server = server
        self.pids = pids

    def signal(self, number: int) -> None:
        """Send a signal to all processes that still run."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def runs(self) -> bool:
        """Whether one of them still runs."""
        return any(_runs(pid) for pid in self.pids)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> bool:
        """Wait for ``condition`` or the end of the processes; returns whether they still run."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.runs():
                return False
            assert time.monotonic() < deadline, f"waited too long; see {self._server.log}"
            time.sleep(0.001)
        return True

    def wait(self) -> list[int]:
        """Exit codes, once all have ended."""
        return self._server.read()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks only; the server takes the dead away at once
    except ProcessLookupError:
        return False
    return True


def _serve() -> None:
    import train_net  # what takes the time

    for line in sys.stdin:
        job = json.loads(line)
        pids = [_fork(train_net.run, job, environment) for environment in job["environments"]]
        print(json.dumps(pids), flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), flush=True)


def _fork(run: Callable[[list[str]], None], job: dict[str, Any], environment: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ.update(environment)
        # A shell that runs tests in the background has SIGINT ignored, and runs keep it so.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        run(job["argv"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # no clean-up of what the parent still uses


if __name__ == "__main__":
    _serve()
