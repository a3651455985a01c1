"""Starts the processes of a job, or joins those that torchrun or Slurm has started."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm
from torch.distributed.rendezvous import rendezvous

from ...errors import InputError, TrainingFailed, one_line
from .child_errors import ChildReports, leave_group
from .cluster import Job, find_job
from .signals import forwarded_signals

CONNECT_TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others of its job to start."""
DEFAULT_TIMEOUT_MINUTES = 60.0
"""How long a process waits for another in the run; the others wait while one evaluates."""
REPORT_DELAY = 10.0
"""Seconds by which other processes report an error later than the main one: torchrun ends them as
soon as the first has failed, so that what all of them found is said once."""


class LaunchError(TrainingFailed):
    """The processes of a job did not find each other; its text is one sentence for a user."""


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--dist-timeout`` to Detectron2's arguments."""
    parser.add_argument(
        "--dist-timeout",
        type=float,
        default=DEFAULT_TIMEOUT_MINUTES,
        metavar="MINUTES",
        help="how long a process of a job waits for another, as for the one that evaluates, "
        "before it fails (default: %(default)g)",
    )


def check_job_arguments(args: argparse.Namespace, job: Job) -> None:
    """Check Detectron2's process arguments, which ``job`` makes unnecessary, against it.

    Raises:
        ValueError: they ask for another number of processes or machines.
    """
    allowed = {
        # 1 and 0 are what they are if not given; 0 GPUs is how a CPU job is asked for.
        "--num-gpus": (args.num_gpus, {0, 1, job.local_size}),
        "--num-machines": (args.num_machines, {1, job.machines}),
        "--machine-rank": (args.machine_rank, {0, job.machine_rank}),
    }
    for option, (value, values) in allowed.items():
        if value not in values:
            raise InputError(
                f"{option} is {value}, but {job.launcher} has started {job.local_size} "
                f"process(es) on each of {job.machines} machine(s), this one being machine "
                f"{job.machine_rank}; leave {option} out"
            )


def launch_job(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Run ``main(args)`` in each process of the job.

    Under torchrun, or under Slurm's srun with more than one task, this process is one of them: it
    joins the others, and leaves them at the end. Otherwise Detectron2's ``launch`` starts
    ``args.num_gpus`` processes. With CUDA they talk by NCCL, each with its own GPU; without it, or
    with ``--num-gpus 0`` under torchrun or srun, by gloo.

    Raises:
        InputError: the environment is incomplete, or asks for more GPUs than there are.
        LaunchError: the processes did not find each other.
        UserError, TrainingFailed: raised by a process that was started here.
        ProcessRaisedException: a bug in one of them, with its traceback as text.
    """
    timeout = timedelta(minutes=getattr(args, "dist_timeout", DEFAULT_TIMEOUT_MINUTES))
    job = find_job()
    if job is None:
        starts = args.num_gpus * args.num_machines > 1
        reports = ChildReports() if starts else None
        with (
            forwarded_signals(active=starts),
            reports.raised_here() if reports else contextlib.nullcontext(),
        ):
            launch(
                reports.reporting(main) if reports else main,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(args,),
                timeout=timeout,
            )
    elif job.world_size == 1:
        main(args)
    else:
        with _joined(job, torch.cuda.is_available() and args.num_gpus > 0, timeout):
            main(args)


def launch_line() -> str:
    """One line for the log on how this process was started and which of how many it is."""
    job, size = find_job(), comm.get_world_size()
    if job is None and size == 1:
        tasks = os.environ.get("SLURM_NTASKS", "1")
        hint = f"; SLURM_NTASKS is {tasks}: start with srun to use them" if tasks != "1" else ""
        return f"one process{hint}"
    machines = size // comm.get_local_size() if size > 1 else 1
    count = f"process {comm.get_rank()} of {size} on {machines} machine(s)"
    backend = f", connected by {dist.get_backend()}" if size > 1 else ""
    if job is None:
        return f"started by Detectron2's launcher: {count}{backend}"
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    again = f", restart {restarts}" if restarts != "0" else ""
    return f"started by {job.launcher}: {count}{backend} at {job.host}:{job.port}{again}"


@contextlib.contextmanager
def _joined(job: Job, use_gpus: bool, timeout: timedelta) -> Iterator[None]:
    """Within the block, this process is part of ``job``."""
    if use_gpus:
        torch.cuda.set_device(job.gpu(torch.cuda.device_count()))
    try:
        _connect(job, "nccl" if use_gpus else "gloo", timeout)
    except (RuntimeError, OSError) as error:
        reason = one_line(error)
        raise LaunchError(
            f"process {job.rank} of {job.world_size} did not meet the others at {job.host}:"
            f"{job.port} within {CONNECT_TIMEOUT.total_seconds():.0f} s ({reason[:200]}); see "
            "whether all of them were started, and that machines reach this address and port (set "
            "MASTER_ADDR and MASTER_PORT to others, or GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME "
            "to the network interface)"
        ) from error
    try:
        yield
    except Exception:
        if job.rank:
            time.sleep(REPORT_DELAY)
        raise  # still connected: taking leave of processes that may hang would hang, too
    except SystemExit:  # a stop, after which this process waits for nobody
        leave_group()
        raise
    with contextlib.suppress(RuntimeError):  # the main process may have ended with its exit code
        comm.synchronize()
    leave_group()


def _connect(job: Job, backend: str, timeout: timedelta) -> None:
    url = "env://" if job.launcher == "torchrun" else f"tcp://{job.host}:{job.port}"
    store, rank, size = next(rendezvous(url, job.rank, job.world_size, timeout=CONNECT_TIMEOUT))
    store = _own_store(store, rank, size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    comm.create_local_process_group(job.local_size)
    comm.synchronize()


def _own_store(store: dist.Store, rank: int, size: int) -> dist.Store:
    """The part of ``store`` that belongs only to this start of the job.

    torchrun keeps the store when it starts processes again, with the addresses of dead ones in it.
    Each process therefore shows a new name, by which rank 0 answers with the name of this start.

    Raises:
        TimeoutError, RuntimeError: a process did not show up within CONNECT_TIMEOUT.
    """
    me = uuid.uuid4().hex
    store.set(f"here/{rank}", me)
    if rank:
        start = store.get(f"start/{me}").decode()
        store.set(f"met/{start}/{rank}", "")
        return dist.PrefixStore(start, store)
    missing, deadline = set(range(1, size)), time.monotonic() + CONNECT_TIMEOUT.total_seconds()
    while missing:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no sign of process(es) {sorted(missing)}")
        for other in list(missing):
            if store.check([f"met/{me}/{other}"]):
                missing.remove(other)
            elif store.check([f"here/{other}"]):  # of this start, or of one before
                store.set(f"start/{store.get(f'here/{other}').decode()}", me)
        time.sleep(0.02)
    return dist.PrefixStore(me, store)
