"""A job that is started again continues what it saved itself, and nothing else."""

import os

import pytest

from retinanet_ext.engine.launch.restarts import START_FILE, continues_job, job_starts

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0"}
FIRST = {**TORCHRUN, "TORCHELASTIC_ERROR_FILE": "/tmp/te_a/none_x/attempt_0/0/error.json"}
AGAIN = {**FIRST, "TORCHELASTIC_ERROR_FILE": "/tmp/te_a/none_x/attempt_1/0/error.json"}
OTHER_JOB = {**FIRST, "TORCHELASTIC_ERROR_FILE": "/tmp/te_b/none_y/attempt_0/0/error.json"}
SLURM = {"SLURM_JOB_ID": "7"}
REQUEUED = {**SLURM, "SLURM_RESTART_COUNT": "1"}
# Where torchrun keeps no such folder.
COUNTED = {**TORCHRUN, "TORCHELASTIC_ERROR_FILE": ""}
COUNTED_AGAIN = {**COUNTED, "TORCHELASTIC_RESTART_COUNT": "1"}


def start(folder, environ):
    return continues_job(str(folder), job_starts(environ))


def save(folder):
    (folder / "last_checkpoint").write_text("model_0000009.pth")


def make_older(path, seconds=10):
    time = path.stat().st_mtime - seconds
    os.utime(path, (time, time))


@pytest.mark.parametrize(
    "first, again", [(FIRST, AGAIN), (SLURM, REQUEUED), (COUNTED, COUNTED_AGAIN)]
)
def test_a_job_started_again_continues_from_its_checkpoint(tmp_path, first, again):
    assert not start(tmp_path, first)
    assert not start(tmp_path, again)  # it has saved nothing yet
    save(tmp_path)
    assert start(tmp_path, again)
    assert start(tmp_path, again)


@pytest.mark.parametrize("first, again", [(FIRST, AGAIN), (SLURM, REQUEUED)])
def test_a_checkpoint_of_an_older_run_is_not_continued(tmp_path, first, again):
    save(tmp_path)
    make_older(tmp_path / "last_checkpoint")
    assert not start(tmp_path, first)
    assert not start(tmp_path, again)
    save(tmp_path)
    assert start(tmp_path, again)


@pytest.mark.parametrize("other", [OTHER_JOB, {"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}])
def test_another_job_does_not_continue(tmp_path, other):
    start(tmp_path, FIRST)
    start(tmp_path, SLURM)
    save(tmp_path)
    assert not start(tmp_path, other)


def test_a_second_run_in_one_slurm_job_does_not_continue(tmp_path):
    start(tmp_path, SLURM)
    save(tmp_path)
    assert not start(tmp_path, SLURM)


def test_torchrun_started_again_by_slurm_continues(tmp_path):
    start(tmp_path, {**FIRST, **SLURM})
    save(tmp_path)
    assert start(tmp_path, {**OTHER_JOB, **REQUEUED})


def test_a_machine_that_joined_later_can_continue_alone(tmp_path, monkeypatch):
    start(tmp_path, FIRST)
    save(tmp_path)
    both = [job_starts(AGAIN), job_starts(OTHER_JOB)]
    gathered = [(list(s.own), list(s.earlier)) for s in both]
    monkeypatch.setattr("retinanet_ext.engine.launch.restarts.comm.all_gather", lambda _: gathered)
    assert start(tmp_path, {})
    monkeypatch.undo()
    assert start(tmp_path, OTHER_JOB)


def test_a_run_that_nobody_starts_again_leaves_no_file(tmp_path):
    save(tmp_path)
    assert not start(tmp_path, {})
    assert not (tmp_path / START_FILE).exists()


def test_an_address_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not start("s3://bucket/output", FIRST)
    assert not list(tmp_path.iterdir())


def test_a_missing_output_folder_is_made(tmp_path):
    assert not start(tmp_path / "a" / "b", FIRST)
    assert (tmp_path / "a" / "b" / START_FILE).exists()
