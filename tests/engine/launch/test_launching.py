"""Processes of torchrun, Slurm and Detectron2's launcher become one job."""

import argparse
import datetime
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from retinanet_ext.engine.launch import checks, launching
from retinanet_ext.engine.launch.cluster import Job
from retinanet_ext.engine.launch.launching import (
    add_launch_arguments,
    check_job_arguments,
    launch_job,
)

ROOT = Path(__file__).resolve().parents[3]
JOB = Job("torchrun", 5, 8, 1, 4, "node7", 29400)

# Each process writes what it is and what it heard from the others.
SCRIPT = """
import datetime, json, os, sys
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from retinanet_ext.engine.launch import launching

def main(args):
    rank = comm.get_rank()
    place = [rank, comm.get_world_size(), comm.get_local_rank(), comm.get_local_size()]
    heard = comm.all_gather(rank * 10)
    with open(f"{args.opts[0]}/{rank}.json", "w") as file:
        json.dump([place, heard, launching.launch_line()], file)
    if "stop" in args.opts:
        raise SystemExit(0)
    if "fail" in args.opts:
        raise ValueError("all of us")

if __name__ == "__main__":
    threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
    launching.CONNECT_TIMEOUT = datetime.timedelta(seconds=float(60))
    try:
        launching.launch_job(main, default_argument_parser().parse_args())
    except launching.LaunchError as error:
        sys.exit(f"error: {error}")
    import torch.distributed
    assert not torch.distributed.is_initialized()
    if sys.platform == "linux":  # threads of groups that still exist could abort the end
        assert len(os.listdir("/proc/self/task")) == threads
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(SCRIPT)
    return path


def environment(**changes):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_"))}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    extra = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return {**kept, **extra, **changes}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def run(*command, **changes):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
    )


def torchrun(*command):
    standalone = ("--standalone", "--nproc-per-node", "2")
    return run("-m", "torch.distributed.run", *standalone, *command)


def srun_environment(rank, size, port):
    return environment(
        SLURM_JOB_ID="12",
        SLURM_STEP_ID="0",
        SLURM_STEP_NUM_TASKS=str(size),
        SLURM_STEP_TASKS_PER_NODE=str(size),
        SLURM_STEP_NODELIST="localhost",
        SLURM_PROCID=str(rank),
        SLURM_LOCALID=str(rank),
        MASTER_PORT=port,
    )


def assert_one_job(folder, launcher):
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    assert [place for place, _, _ in found] == [[0, 2, 0, 2], [1, 2, 1, 2]]
    assert [heard for _, heard, _ in found] == [[0, 10], [0, 10]]
    line = found[1][2]
    assert line.startswith(f"started by {launcher}: process 1 of 2 on 1 machine(s), ")
    assert "connected by gloo" in line


@pytest.mark.slow
def test_torchruns_processes_become_one_job(script, tmp_path):
    done = torchrun(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_one_job(tmp_path, "torchrun")


@pytest.mark.slow
def test_what_all_processes_found_is_said_once(script, tmp_path):
    script.write_text(
        SCRIPT.replace("main(args):", "main(args):\n    launching.REPORT_DELAY = 200")
    )
    done = torchrun(script, tmp_path, "fail")
    assert done.returncode != 0
    assert done.stderr.count("ValueError: all of us") == 1


@pytest.mark.slow
def test_sruns_tasks_become_one_job(script, tmp_path):
    port = free_port()
    command = [sys.executable, str(script), str(tmp_path), "stop"]
    tasks = [
        subprocess.Popen(command, env=srun_environment(rank, 2, port), stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [task.communicate(timeout=300)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], errors
    assert_one_job(tmp_path, "srun")


@pytest.mark.slow
def test_detectron2s_launcher_still_starts_processes(script, tmp_path):
    done = run(script, "--num-gpus", 2, "--dist-url", "auto", tmp_path)
    assert done.returncode == 0, done.stderr
    assert_one_job(tmp_path, "Detectron2's launcher")


@pytest.mark.slow
def test_a_process_that_meets_nobody_says_where_it_waited(script, tmp_path):
    script.write_text(SCRIPT.replace("float(60)", "float(2)"))
    port = free_port()
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(
        command, env=srun_environment(1, 2, port), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert f"error: process 1 of 2 did not meet the others at localhost:{port}" in done.stderr
    assert "MASTER_ADDR and MASTER_PORT" in done.stderr


def job_args(**changes):
    args = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "tcp://127.0.0.1:1"}
    return argparse.Namespace(**{**args, **changes})


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_gpus": 0}, {"num_gpus": 4, "num_machines": 2, "machine_rank": 1}],
)
def test_arguments_that_say_what_torchrun_did_are_fine(changes):
    check_job_arguments(job_args(**changes), JOB)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"num_gpus": 8}, "--num-gpus is 8, but torchrun has started 4 process"),
        ({"num_gpus": -1}, "--num-gpus is -1"),
        ({"num_machines": 3}, "--num-machines is 3, but .* each of 2 machine"),
        ({"machine_rank": 2}, "--machine-rank is 2, but .*being machine 1; leave --machine-rank"),
    ],
)
def test_arguments_that_contradict_torchrun_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        check_job_arguments(job_args(**changes), JOB)


def test_the_check_before_launching_knows_the_job(monkeypatch):
    monkeypatch.setattr(checks.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(checks.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(checks, "find_job", lambda: JOB)
    with pytest.raises(ValueError, match="--num-gpus is 8, but torchrun"):
        checks.check_launch(job_args(num_gpus=8))
    with pytest.raises(ValueError, match="4 processes on this machine, which has 2 GPU"):
        checks.check_launch(job_args())
    checks.check_launch(job_args(num_gpus=0))  # a job of CPU processes


def test_a_job_of_one_process_needs_no_connection(monkeypatch):
    calls = []
    monkeypatch.setattr(launching, "find_job", lambda: Job("torchrun", 0, 1, 0, 1, "nowhere", 1))
    launch_job(calls.append, job_args(dist_timeout=1.0))
    assert len(calls) == 1
    assert launching.launch_line().startswith("started by torchrun: process 0 of 1")


def test_detectron2s_launcher_gets_the_arguments(monkeypatch):
    calls = []
    monkeypatch.setattr(launching, "find_job", lambda: None)
    monkeypatch.setattr(launching, "launch", lambda *args, **options: calls.append(options))
    parser = argparse.ArgumentParser()
    add_launch_arguments(parser)
    timeout = parser.parse_args(["--dist-timeout", "90"]).dist_timeout
    args = job_args(num_machines=2, machine_rank=1, dist_timeout=timeout)
    launch_job(print, args)
    assert calls[0]["timeout"].total_seconds() == 90 * 60
    assert (calls[0]["num_machines"], calls[0]["machine_rank"]) == (2, 1)
    assert calls[0]["dist_url"] == args.dist_url


@pytest.mark.parametrize("tasks, hint", [("8", True), ("1", False), (None, False)])
def test_slurm_tasks_that_nobody_started_are_pointed_out(monkeypatch, tasks, hint):
    monkeypatch.setattr(launching, "find_job", lambda: None)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    if tasks:
        monkeypatch.setenv("SLURM_NTASKS", tasks)
    line = launching.launch_line()
    assert line.startswith("one process")
    assert ("start with srun" in line) is hint


def test_processes_started_again_do_not_meet_dead_ones():
    kept = torch.distributed.HashStore()
    for start in range(2):
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(launching._own_store, kept, 0, 2)
            time.sleep(0.1 * start)  # the second time, time to be misled by what the first left
            stores = [pool.submit(launching._own_store, kept, 1, 2).result(10), first.result(10)]
        assert not stores[1].check(["address"])
        stores[0].set("address", str(start))
        assert stores[1].get("address") == str(start).encode()


def test_a_process_that_never_comes_is_named(monkeypatch):
    monkeypatch.setattr(launching, "CONNECT_TIMEOUT", datetime.timedelta(seconds=0.1))
    with pytest.raises(TimeoutError, match=r"\[1, 2\]"):
        launching._own_store(torch.distributed.HashStore(), 0, 3)
