"""A run that is killed and resumed, many times, is the run that was left alone, bit by bit."""

from __future__ import annotations

import json
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny import write_config

# Everything that draws random numbers or keeps a state.
OPTS = {
    "SOLVER.CHECKPOINT_PERIOD": "2",
    "SOLVER.CHECKPOINTS_KEPT": "3",
    "SOLVER.EMA.ENABLED": "True",
    "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "DATALOADER.REPEAT_THRESHOLD": "0.9",
    "DATALOADER.ASPECT_RATIO_GROUPING": "True",
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.MIN_SIZE_TRAIN": "(48, 64)",
    "INPUT.AUG": "['Default', 'RandomBrightness', {'NAME': 'Mosaic', 'SIZE': [64, 64]}]",
    # RegNetX-200MF: small files, since dozens are written.
    "MODEL.BACKBONE.NAME": "build_fpn_backbone_p6p7",
    "MODEL.FPN.BOTTOM_UP": "build_regnet_backbone",
    "MODEL.FPN.IN_FEATURES": "['s2', 's3', 's4']",
    "MODEL.REGNET.DEPTH": "13",
    "MODEL.REGNET.W_0": "24",
    "MODEL.REGNET.W_A": "36.44",
    "MODEL.REGNET.W_M": "2.49",
    "MODEL.REGNET.GROUP_WIDTH": "8",
    "MODEL.REGNET.NORM": "BN",
    "MODEL.FPN.NORM": "BN",
    "TEST.EVAL_PERIOD": "20",
    "TEST.VAL_LOSS": "True",
}
TIMES = ("time", "eta_seconds", "images_per_second", "data_time", "rank_data_time")


@pytest.fixture
def command_line(tmp_path, tiny_root):
    """A function: arguments of a run with this output and so many iterations."""

    def arguments(output: Path, iterations: int, workers: int) -> list[str]:
        argv = ["--config-file", str(write_config(tmp_path)), "--data-root", str(tiny_root)]
        opts = {**OPTS, "SOLVER.MAX_ITER": str(iterations), "DATALOADER.NUM_WORKERS": str(workers)}
        opts["OUTPUT_DIR"] = str(output)
        return [*argv, "--resume", *(word for item in opts.items() for word in item)]

    return arguments


def two_processes() -> list[dict[str, str]]:
    """What a launcher tells each of two processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    return [{**common, "MASTER_PORT": port, "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(2)]


def checkpoints(output: Path) -> set[str]:
    return {path.name for path in output.glob("model_0*.pth")}


def kill_at_random(server, argv, output, kills, environments, seed) -> list[str]:
    """Start, kill and resume; every second kill comes while a checkpoint is being written.

    Returns:
        The kinds of the kills that hit.
    """
    rng = random.Random(seed)
    hits = []
    for number in range(kills):
        before = checkpoints(output)
        job = server.start(argv, environments())

        def has_saved(before=before) -> bool:
            return bool(checkpoints(output) - before)

        def is_saving() -> bool:
            return any(output.glob("*.unfinished*"))

        alive = job.wait_until(has_saved)
        if number % 2:
            alive = alive and job.wait_until(is_saving)
        else:
            time.sleep(rng.uniform(0.0, 0.3))
        assert alive, f"training ended after {number} kills; see {server.log}"
        hits.append("save" if is_saving() else "elsewhere")
        job.signal(signal.SIGKILL)
        codes = job.wait()
        assert -signal.SIGKILL in codes, f"{codes}: training ended by itself; see {server.log}"
    return hits


def assert_same(left: Any, right: Any, where: str) -> None:
    assert type(left) is type(right), where
    if isinstance(left, dict):
        names = [key for key in left if key not in TIMES]
        assert names == [key for key in right if key not in TIMES], where
        for key in names:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    elif isinstance(left, torch.Tensor):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True, msg=where)
    else:
        assert left == right or left != left, where  # NaN is not equal to itself


def load_run(output: Path) -> dict[str, Any]:
    """What a run leaves behind that has to be the same."""
    run = {name: torch.load(output / f"{name}.pth") for name in ("model_final", "model_best")}
    for checkpoint in run.values():
        checkpoint["trainer"].pop("config", None)  # has the output folder
    lines = (output / "metrics.json").read_text().splitlines()
    run["metrics"] = [json.loads(line) for line in lines]
    run["evaluations"] = json.loads((output / "evaluations.json").read_text())
    return run


def check_resumes(server, command_line, tmp_path, kills, iterations, workers, environments):
    left_alone, killed = tmp_path / "left_alone", tmp_path / "killed"
    job = server.start(command_line(left_alone, iterations, workers), environments())
    assert set(job.wait()) == {0}, server.log.read_text()[-3000:]

    argv = command_line(killed, iterations, workers)
    hits = kill_at_random(server, argv, killed, kills, environments, seed=iterations)
    assert hits.count("save") >= kills // 2 - 1
    job = server.start(argv, environments())
    assert set(job.wait()) == {0}, server.log.read_text()[-3000:]

    expected, resumed = load_run(left_alone), load_run(killed)
    assert [line["iteration"] for line in expected["metrics"]] == sorted(
        {line["iteration"] for line in expected["metrics"]}
    )
    assert_same(resumed, expected, "run")
    assert sorted(checkpoints(killed)) == sorted(checkpoints(left_alone))
    assert not list(killed.glob("*.unfinished*"))


@pytest.mark.slow
def test_20_kills_of_a_run_with_2_workers_change_nothing(training_server, command_line, tmp_path):
    check_resumes(
        training_server,
        command_line,
        tmp_path,
        kills=20,
        iterations=120,
        workers=2,
        environments=lambda: [{}],
    )


@pytest.mark.slow
def test_5_kills_of_two_processes_change_nothing(training_server, command_line, tmp_path):
    check_resumes(
        training_server,
        command_line,
        tmp_path,
        kills=5,
        iterations=40,
        workers=1,
        environments=two_processes,
    )
