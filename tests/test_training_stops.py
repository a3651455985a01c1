"""Real training processes that are stopped, fail, or find damage: nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retinanet_ext.cli import main as command
from tests.helpers.forked_training import ROOT
from tests.helpers.tiny import write_config

pytestmark = pytest.mark.slow


@pytest.fixture
def run(training_server, tmp_path, tiny_root):
    """Start a run in ``tmp_path / "output"``; the console holds what it prints."""
    training_server.log = tmp_path / "console.txt"
    arguments = ["--config-file", str(write_config(tmp_path)), "--data-root", str(tiny_root)]

    def start(*words: str):
        return training_server.start([*arguments, *words, "DATASETS.TEST", "()"])

    start.arguments = arguments
    return start


def console(tmp_path: Path) -> str:
    return (tmp_path / "console.txt").read_text()


def numbered(tmp_path: Path) -> list[int]:
    return sorted(int(x.stem[6:]) for x in (tmp_path / "output").glob("model_0*.pth"))


@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)]
)
def test_a_signal_saves_at_once_and_resume_goes_on_there(run, tmp_path, number, code):
    job = run("SOLVER.MAX_ITER", "100000", "SOLVER.CHECKPOINT_PERIOD", "3")
    assert job.wait_until(lambda: numbered(tmp_path) != [])
    job.signal(number)
    assert job.wait() == [code]
    assert "add --resume to continue" in console(tmp_path)
    last = numbered(tmp_path)[-1]
    assert run("--resume", "SOLVER.MAX_ITER", str(last + 3)).wait() == [0]
    assert f"resuming at iteration {last + 1} " in console(tmp_path)
    assert torch.load(tmp_path / "output" / "model_final.pth")["iteration"] == last + 2


def test_a_reader_of_the_console_that_leaves_ends_the_training_saved(run, tmp_path):
    # As of: train_net.py ... | head -n 1
    process = subprocess.Popen(
        [sys.executable, "train_net.py", *run.arguments, "SOLVER.MAX_ITER", "100000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stderr
    while not process.stdout.readline().startswith("iter "):
        assert process.poll() is None
    process.stdout.close()
    said = process.stderr.read()
    assert (process.wait(), said) == (141, "")
    last = numbered(tmp_path)[-1]
    assert run("--resume", "SOLVER.MAX_ITER", str(last + 2)).wait() == [0]


def test_a_second_training_in_the_same_folder_does_not_start(run, tmp_path):
    job = run("SOLVER.MAX_ITER", "100000", "SOLVER.CHECKPOINT_PERIOD", "3")
    assert job.wait_until(lambda: numbered(tmp_path) != [])
    second = subprocess.run(
        [sys.executable, "train_net.py", *run.arguments, "--resume"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].startswith("error: OUTPUT_DIR '")
    assert f"process {job.pids[0]} on" in second.stderr and "--force" in second.stderr
    job.signal(signal.SIGKILL)
    job.wait()
    last = numbered(tmp_path)[-1]
    assert run("--resume", "SOLVER.MAX_ITER", str(last + 2)).wait() == [0]
    assert not (tmp_path / "output" / "training.lock").exists()


def test_divergence_leaves_a_report_and_a_command_that_repeats_it(run, tmp_path, capsys):
    assert run("SOLVER.BASE_LR", "1e30", "SOLVER.MAX_ITER", "20").wait() == [1]
    error = console(tmp_path).splitlines()[-1]
    assert error.startswith("error: ") and "replay-step" in error and "BASE_LR" in error
    (snapshot,) = (tmp_path / "output" / "trouble").glob("*/snapshot.pth")
    assert str(snapshot) in error
    assert command(["replay-step", str(snapshot)]) == 1
    assert "not finite" in capsys.readouterr().out


def test_a_killed_worker_is_told_in_a_sentence_and_costs_no_iteration(run, tmp_path):
    opts = ["DATALOADER.NUM_WORKERS", "2", "SOLVER.CHECKPOINT_PERIOD", "4"]
    job = run("SOLVER.MAX_ITER", "100000", *opts)
    assert job.wait_until(lambda: numbered(tmp_path) != [])
    listed = subprocess.run(["pgrep", "-P", str(job.pids[0])], capture_output=True, text=True)
    workers = [int(pid) for pid in listed.stdout.split()]
    assert len(workers) == 2
    subprocess.run(["kill", "-9", str(workers[0])], check=True)
    assert job.wait() == [1]
    error = console(tmp_path).splitlines()[-1]
    assert error.startswith("error: ") and "a worker of the data loader died" in error
    # The iteration before the error is saved, whatever the period.
    last = numbered(tmp_path)[-1]
    assert "after the error: saving" in console(tmp_path) or (last + 1) % 4 == 0
    assert run("--resume", "SOLVER.MAX_ITER", str(last + 2), *opts).wait() == [0]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(run, tmp_path):
    opts = ["SOLVER.CHECKPOINT_PERIOD", "2"]
    assert run("SOLVER.MAX_ITER", "6", *opts).wait() == [0]
    output = tmp_path / "output"
    final, newest = output / "model_final.pth", output / "model_0000005.pth"
    final.write_bytes(final.read_bytes()[:-1000])  # truncated
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    newest.write_bytes(content)
    assert run("--resume", "SOLVER.MAX_ITER", "8", *opts).wait() == [0]
    text = console(tmp_path)
    assert "model_final.pth" in text and "model_0000005.pth" in text
    assert f"resuming at iteration 4 from {output / 'model_0000003.pth'}" in text
    assert torch.load(final)["iteration"] == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_quickstart_is_generated_leaves_nothing(
    training_server, tmp_path, number
):
    training_server.log = tmp_path / "console.txt"
    config = str(ROOT / "configs" / "quickstart.yaml")
    words = ["--config-file", config, "--data-root", str(tmp_path / "data")]
    job = training_server.start([*words, "OUTPUT_DIR", str(tmp_path / "output")])
    assert job.wait_until(lambda: any(tmp_path.glob("data/*.tmp-*/train/*.png")))
    listed = subprocess.run(["pgrep", "-P", str(job.pids[0])], capture_output=True, text=True)
    job.signal(number)
    assert job.wait() == [128 + number]
    assert not list(tmp_path.glob("data/*.tmp-*")) and "Traceback" not in console(tmp_path)
    assert not (tmp_path / "output" / "training.lock").exists()
    left = [pid for pid in listed.stdout.split() if Path(f"/proc/{pid}").exists()]
    assert left == []
