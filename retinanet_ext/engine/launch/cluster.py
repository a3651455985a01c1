"""Which process of which job this is, from the environment that torchrun or Slurm's srun sets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import InputError

# What torchrun sets in each process; all of it is needed.
TORCHRUN_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
# Those that nobody sets for another purpose, so that one alone is a mistake.
_TELLTALES = TORCHRUN_VARIABLES[:4]
SLURM_PORTS = range(10000, 30000)  # below those that systems give out by themselves


@dataclass(frozen=True)
class Job:
    """The place of this process in a job that something else has started."""

    launcher: str
    """``"torchrun"`` or ``"srun"``."""
    rank: int
    """0 .. ``world_size`` - 1; those of a machine follow each other."""
    world_size: int
    """Processes on all machines."""
    local_rank: int
    """0 .. ``local_size`` - 1 on this machine."""
    local_size: int
    """Processes per machine, the same on each."""
    host: str
    """Name or address of the machine where rank 0 can be reached."""
    port: int

    @property
    def machines(self) -> int:
        """Number of machines."""
        return self.world_size // self.local_size

    @property
    def machine_rank(self) -> int:
        """0 .. ``machines`` - 1."""
        return self.rank // self.local_size

    def gpu(self, count: int) -> int:
        """Index of this process' GPU among the ``count`` that it sees.

        Raises:
            ValueError: there are more processes on this machine than GPUs.
        """
        if count == 1 and self.launcher == "srun":
            return 0  # as with --gpus-per-task=1, where each process sees only its own
        if self.local_size > count:
            option = "--nproc-per-node" if self.launcher == "torchrun" else "--ntasks-per-node"
            raise InputError(
                f"{self.launcher} started {self.local_size} processes on this machine, which has "
                f"{count} GPU(s): give {option} {count}, or --num-gpus 0 to train_net.py for CPUs"
            )
        return self.local_rank


def find_job(environ: Mapping[str, str] = os.environ) -> Job | None:
    """Return the job that this process was started in; None if by hand.

    A torchrun started by srun is torchrun's. The only process of its Slurm step, and the script of
    ``sbatch``, are started by hand.

    Raises:
        ValueError: the environment is incomplete, or its numbers do not belong together.
    """
    missing = [name for name in TORCHRUN_VARIABLES if not environ.get(name)]
    if not missing:
        return _checked(_torchrun_job(environ))
    # Set only by srun: SLURM_NTASKS and SLURM_PROCID are in a batch script, too.
    if _number(environ, "SLURM_STEP_NUM_TASKS", 1) > 1:
        return _checked(_slurm_job(environ))
    found = [name for name in _TELLTALES if environ.get(name)]
    if found:
        raise InputError(
            f"the environment has {', '.join(found)} but not {', '.join(missing)}: start with "
            f"torchrun, which sets all of them, or unset {', '.join(found)}"
        )
    return None


def first_host(nodes: str) -> str:
    """First machine of a list in Slurm's notation: ``node003`` of ``node[003-006,9],login``."""
    depth, end = 0, len(nodes)
    for i, char in enumerate(nodes):
        depth += {"[": 1, "]": -1}.get(char, 0)
        if char == "," and depth == 0:
            end = i
            break
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes[:end])


def _torchrun_job(environ: Mapping[str, str]) -> Job:
    return Job(
        launcher="torchrun",
        rank=_number(environ, "RANK"),
        world_size=_number(environ, "WORLD_SIZE"),
        local_rank=_number(environ, "LOCAL_RANK"),
        local_size=_number(environ, "LOCAL_WORLD_SIZE"),
        host=environ["MASTER_ADDR"],
        port=_number(environ, "MASTER_PORT"),
    )


def _slurm_job(environ: Mapping[str, str]) -> Job:
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "")
    counts = {int(count) for count in re.findall(r"(?:^|,)(\d+)", tasks)}
    if len(counts) != 1:
        raise InputError(
            f"srun started '{tasks}' tasks per machine (SLURM_STEP_TASKS_PER_NODE); each machine "
            "must have the same number: give --ntasks-per-node"
        )
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    host = environ.get("MASTER_ADDR") or first_host(nodes)
    if not host:
        raise InputError("srun names no machine in SLURM_STEP_NODELIST: set MASTER_ADDR")
    # Another for each job and step: two of them may share a machine.
    number = 7 * _number(environ, "SLURM_JOB_ID", 0) + _number(environ, "SLURM_STEP_ID", 0)
    return Job(
        launcher="srun",
        rank=_number(environ, "SLURM_PROCID"),
        world_size=_number(environ, "SLURM_STEP_NUM_TASKS"),
        local_rank=_number(environ, "SLURM_LOCALID"),
        local_size=counts.pop(),
        host=host,
        port=_number(environ, "MASTER_PORT", SLURM_PORTS[number % len(SLURM_PORTS)]),
    )


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name) or ("" if default is None else str(default))
    if not text.isdecimal():
        raise InputError(f"the environment variable {name} is '{text}', which is no number")
    return int(text)


def _checked(job: Job) -> Job:
    """``job``, or ValueError where its numbers contradict each other."""
    counted = f"process {job.rank} of {job.world_size}, {job.local_rank} of {job.local_size} here"
    names = "RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE"
    if job.launcher == "srun":
        names = "SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID, SLURM_STEP_TASKS_PER_NODE"
    if job.rank >= job.world_size or job.local_rank >= job.local_size:
        raise InputError(f"{names} say {counted}, which cannot be; unset them and start again")
    if job.world_size % job.local_size or job.rank % job.local_size != job.local_rank:
        hint = "--nproc-per-node" if job.launcher == "torchrun" else "--distribution=block"
        raise InputError(
            f"{names} say {counted}: each machine must run the same number of processes, with "
            f"ranks that follow each other; give {hint}"
        )
    return job
