"""Two processes on a CPU train the same network as one, whoever starts them and whatever dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(autouse=True)
def cpu_alone(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def config_file(cfg, tmp_path):
    """A config without parts whose result depends on how a batch is split."""
    # Smooth L1 with a wide bend: the sign of an error near 0, L1's gradient, is rounding.
    cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA = 1.0
    # A norm without statistics over the batch, which are each process's own.
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = cfg.MODEL.RETINANET.NORM = "GN"
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("bccd_train",), ()
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())
    return path


def train_command(launcher, config_file, data_root, output):
    command = [sys.executable, *launcher, str(ROOT / "train_net.py")]
    command += ["--config-file", str(config_file), "--data-root", str(data_root)]
    return command, ["OUTPUT_DIR", str(output)]


def final_model(config_file, data_root, output, opts, launcher=(), flags=()):
    command, output_opts = train_command(launcher, config_file, data_root, output)
    subprocess.run([*command, *flags, *output_opts, *opts], cwd=ROOT, check=True, timeout=300)
    return torch.load(output / "model_final.pth")["model"]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_total_batch(cfg, config_file, tmp_path, tiny_root):
    start = tmp_path / "start.pth"
    torch.save(build_model(cfg).state_dict(), start)
    opts = ["MODEL.WEIGHTS", str(start), "SOLVER.MAX_ITER", "5", "SOLVER.BASE_LR", "0.002"]
    one, two = (
        final_model(
            config_file,
            tiny_root,
            tmp_path / f"by_{count}",
            opts,
            flags=["--num-gpus", str(count), "--dist-url", "auto"],
        )
        for count in (1, 2)
    )
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    # The comparison says something only if the steps moved the weights by much more.
    before = torch.load(start)
    moved = [(one[name] - value).abs().max() for name, value in before.items() if "weight" in name]
    assert max(moved) > 5e-4

    by_torchrun = final_model(config_file, tiny_root, tmp_path / "torchrun", opts, TORCHRUN)
    assert by_torchrun.keys() == two.keys()
    for name, value in two.items():
        assert torch.equal(by_torchrun[name], value), name


def worker(agent, rank):
    """Process id of the training process with this rank, which torchrun's ``agent`` started."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    for child in children:
        environ = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environ:
            return int(child)
    raise AssertionError(f"no process of rank {rank} among {children}")


def wait_for_change(tag, agent, seconds=240):
    deadline, before = time.monotonic() + seconds, tag.read_text()
    while tag.read_text() in (before, ""):
        assert agent.poll() is None, "the job ended before a process was killed"
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_killed_process_costs_only_the_iterations_since_the_checkpoint(
    config_file, tmp_path, tiny_root
):
    output, last = tmp_path / "output", 24
    launcher = [*TORCHRUN, "--max-restarts", "2"]
    command, opts = train_command(launcher, config_file, tiny_root, output)
    opts += ["SOLVER.MAX_ITER", str(last), "SOLVER.CHECKPOINT_PERIOD", "4"]
    log = tmp_path / "log.txt"
    # Checkpoints of another run, which a restart must not take for this one's.
    output.mkdir()
    (output / "last_checkpoint").write_text("model_0000099.pth")
    os.utime(output / "last_checkpoint", (0, 0))
    with log.open("w") as file:
        agent = subprocess.Popen([*command, *opts], cwd=ROOT, stdout=file, stderr=file)
    try:
        for rank in range(2):
            wait_for_change(output / "last_checkpoint", agent)
            os.kill(worker(agent.pid, rank), signal.SIGKILL)
        assert agent.wait(timeout=300) == 0, log.read_text()
    finally:
        agent.kill()
        agent.wait()
    assert log.read_text().count("resuming at iteration") == 2
    assert torch.load(output / "model_final.pth")["iteration"] == last - 1
