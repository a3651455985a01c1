"""Mapping over processes: same results, in order, and never a hang."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from retinanet_ext.data import parallel
from retinanet_ext.data.parallel import map_in_processes

ROOT = Path(__file__).resolve().parents[2]


def process_of(job):
    return job, os.getpid()


def fail_at_seven(job):
    if job == 7:
        raise OSError(28, "No space left on device")
    return job


@pytest.fixture
def two_cpus(monkeypatch):
    monkeypatch.setattr(parallel, "_count_cpus", lambda: 2)


def test_many_jobs_go_to_other_processes_and_come_back_in_order(two_cpus):
    jobs, processes = zip(*map_in_processes(process_of, range(100), "jobs"), strict=True)
    assert jobs == tuple(range(100))
    assert os.getpid() not in processes
    assert parallel.MARK not in os.environ


def test_few_jobs_stay_here(two_cpus):
    assert map_in_processes(process_of, range(3), "jobs") == [(i, os.getpid()) for i in range(3)]


def test_no_jobs():
    assert map_in_processes(process_of, [], "jobs") == []


def test_errors_of_a_job_come_through_with_their_type(two_cpus):
    with pytest.raises(OSError, match="No space") as error:
        map_in_processes(fail_at_seven, range(100), "jobs")
    assert error.value.errno == 28
    assert parallel.MARK not in os.environ


def test_a_broken_pool_is_replaced_by_this_process(two_cpus, monkeypatch, caplog):
    def broken(workers):
        raise BrokenProcessPool("a child died")

    monkeypatch.setattr(parallel, "_start_pool", broken)
    with caplog.at_level("WARNING", logger=parallel.__name__):
        results = map_in_processes(process_of, range(100), "jobs")
    assert results == [(i, os.getpid()) for i in range(100)]
    assert "a child died" in caplog.text


def test_a_daemonic_process_works_alone(two_cpus, monkeypatch):
    monkeypatch.setattr(type(multiprocessing.current_process()), "daemon", True)
    assert {pid for _, pid in map_in_processes(process_of, range(100), "jobs")} == {os.getpid()}


@pytest.mark.slow
@pytest.mark.parametrize("guard", ["if __name__ == '__main__':", "if True:"])
def test_spawned_processes_work_with_and_without_a_main_guard(guard, tmp_path):
    # Without the guard each child runs the script again; it must end there, and not wait forever.
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"{guard}\n"
        "    from retinanet_ext.data import parallel\n"
        "    parallel._count_cpus = lambda: 2\n"
        "    parallel.sys = type('sys', (), {'platform': 'darwin', 'stderr': sys.stderr})\n"
        "    print(parallel.map_in_processes(abs, range(-70, 0), 'jobs') == list(range(70, 0, -1)))"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
    assert ("put the script's own code under" in done.stderr) == (guard == "if True:")


def test_no_progress_bar_where_stderr_is_no_terminal(capfd):
    map_in_processes(abs, [1, 2], "jobs")
    assert capfd.readouterr().err == ""
