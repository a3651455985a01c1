"""The environments of torchrun and Slurm, and those that are neither."""

import pytest

from retinanet_ext.engine.launch.cluster import SLURM_PORTS, Job, find_job, first_host

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29400",
}
SLURM = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


def test_torchruns_processes_know_their_place():
    job = find_job(TORCHRUN)
    assert job == Job("torchrun", 5, 8, 1, 4, "node7", 29400)
    assert (job.machines, job.machine_rank) == (2, 1)


def test_srun_gives_the_same_place_with_a_port_of_the_step():
    job = find_job(SLURM)
    assert job == Job("srun", 5, 8, 1, 4, "node07", job.port)
    assert job.port in SLURM_PORTS
    ports = {find_job({**SLURM, "SLURM_STEP_ID": str(step)}).port for step in range(4)}
    ports.add(find_job({**SLURM, "SLURM_JOB_ID": "1235"}).port)
    assert len(ports) == 5


def test_a_chosen_meeting_point_is_used_under_slurm():
    job = find_job({**SLURM, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "555"})
    assert (job.host, job.port) == ("10.0.0.1", 555)


def test_torchrun_started_by_srun_is_torchruns():
    assert find_job({**SLURM, **TORCHRUN}).launcher == "torchrun"


def test_a_script_that_exports_part_of_torchruns_variables_is_sruns():
    assert find_job({**SLURM, "WORLD_SIZE": "8"}).launcher == "srun"


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_STEP_NUM_TASKS": "1"},  # srun --ntasks 1
        {"SLURM_STEP_NUM_TASKS": ""},  # the script of sbatch itself
    ],
)
def test_a_lone_process_of_a_slurm_job_is_started_by_hand(changes):
    assert find_job({**SLURM, **changes}) is None


def test_no_environment_is_no_job():
    # People leave these two in their shells.
    assert find_job({"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}) is None


@pytest.mark.parametrize(
    "environ, words",
    [
        ({"RANK": "0"}, "has RANK but not WORLD_SIZE, LOCAL_RANK"),
        ({k: v for k, v in TORCHRUN.items() if k != "LOCAL_RANK"}, "but not LOCAL_RANK: start"),
        ({**TORCHRUN, "RANK": "x"}, "RANK is 'x'"),
        ({**TORCHRUN, "WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
        ({**TORCHRUN, "RANK": "9"}, "process 9 of 8"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "3"}, "the same number of processes.*nproc-per-node"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "5,3"}, "'5,3' tasks.*--ntasks-per-node"),
        ({**SLURM, "SLURM_LOCALID": "2"}, "--distribution=block"),
        ({**SLURM, "SLURM_STEP_NODELIST": ""}, "set MASTER_ADDR"),
        ({**SLURM, "SLURM_PROCID": ""}, "SLURM_PROCID is ''"),
    ],
)
def test_impossible_environments_are_named(environ, words):
    with pytest.raises(ValueError, match=words):
        find_job(environ)


@pytest.mark.parametrize(
    "nodes, host",
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[003-006,9],login", "node003"),
        ("rack[2,4]n[10-12]-ib,x", "rack2n10-ib"),
        ("", ""),
    ],
)
def test_first_machine_of_slurms_lists(nodes, host):
    assert first_host(nodes) == host


def test_each_process_has_its_own_gpu():
    assert find_job(TORCHRUN).gpu(4) == 1
    assert find_job(SLURM).gpu(8) == 1
    assert find_job(SLURM).gpu(1) == 0  # --gpus-per-task=1 shows no other
    with pytest.raises(ValueError, match=r"started 4 processes.*has 1 GPU.*--nproc-per-node 1"):
        find_job(TORCHRUN).gpu(1)
    with pytest.raises(ValueError, match=r"has 2 GPU.*--ntasks-per-node 2"):
        find_job(SLURM).gpu(2)
