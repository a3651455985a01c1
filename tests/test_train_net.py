"""The command line, end to end: train, kill, resume, evaluate, dry-run, and mistakes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train_net
from retinanet_ext.data.datasets.register import register_builtin_datasets
from retinanet_ext.engine.failures.nonfinite import NonFiniteLoss
from retinanet_ext.engine.launch.launching import LaunchError
from retinanet_ext.errors import InputError
from tests.helpers.tiny import restored_loggers, write_config

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def command_line(tmp_path, tiny_root):
    """Arguments that name the tiny config and dataset; logging and root are undone after."""
    with restored_loggers():
        yield ["--config-file", str(write_config(tmp_path)), "--data-root", str(tiny_root)]
    register_builtin_datasets()


def start(arguments, **options):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train_net.py"), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **options)


def run(*arguments):
    process = start(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def wait_for(condition, process, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "training ended before it was killed"
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_checkpoint(command_line, tmp_path):
    output = tmp_path / "output"
    opts = ["DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", "2"]
    tag = output / "last_checkpoint"
    process = start([*command_line, *opts, "SOLVER.MAX_ITER", "100000"], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: tag.exists() and tag.read_text().endswith(".pth"), process)
    finally:
        process.kill()  # SIGKILL: no time to clean up
        process.wait()
    saved = int(tag.read_text()[len("model_") : -len(".pth")])

    last = saved + 4
    code, text, errors = run(*command_line, "--resume", *opts, "SOLVER.MAX_ITER", str(last))
    assert code == 0, errors
    assert f"resuming at iteration {saved + 1} from {output}" in text
    assert torch.load(output / "model_final.pth")["iteration"] == last - 1
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert lines[-1]["iteration"] == last - 1
    assert f"iter {last}/{last} (100%)" in text


@pytest.mark.slow
def test_two_processes_report_one_mistake_in_one_sentence(command_line):
    code, _, errors = run(
        *command_line, "--num-gpus", "2", "--dist-url", "auto", "SOLVER.IMS_PER_BATCH", "5"
    )
    assert code == 2
    mistakes = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(mistakes) == 1 and "IMS_PER_BATCH is 5" in mistakes[0] and "is 2" in mistakes[0]
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["SOLVER.BASE_LRR", "1"], "Did you mean 'SOLVER.BASE_LR'?"),
        (["MODEL.WEIGHTS", "no.pth"], "MODEL.WEIGHTS is 'no.pth'"),
        (["--eval-only"], "nothing to evaluate"),
        (["--num-gpus", "-1"], "--num-gpus is -1"),
        (["--data-root", "no_such_folder"], "no_such_folder"),
        (["MODEL.RETINANET.NUM_CLASSES", "2"], "NUM_CLASSES"),
    ],
)
def test_mistakes_end_with_code_2_and_one_sentence(command_line, arguments, words, capsys):
    with pytest.raises(SystemExit) as exit_info:
        train_net.run([*command_line, *arguments])
    errors = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert words in errors and "Traceback" not in errors
    assert [line[:7] for line in errors.splitlines()] == ["error: "]


@pytest.mark.parametrize(
    "bug", [KeyError("a b"), TypeError("a real bug"), ValueError("a sentence, as torch has them")]
)
def test_bugs_keep_their_traceback_whatever_their_message(command_line, monkeypatch, bug):
    def fail(args):
        raise bug

    monkeypatch.setattr("retinanet_ext.cli.train.setup", fail)
    with pytest.raises(type(bug)) as caught:
        train_net.run(command_line)
    assert caught.value is bug


@pytest.mark.parametrize(
    "error, code",
    [(InputError("no such"), 2), (NonFiniteLoss("loss is nan"), 1), (LaunchError("nobody"), 1)],
)
def test_a_mistake_ends_with_2_and_a_failed_training_with_1(
    command_line, monkeypatch, capsys, error, code
):
    def fail(cfg, resume):
        raise error

    monkeypatch.setattr("retinanet_ext.cli.train.dry_run", fail)
    with pytest.raises(SystemExit) as exit_info:
        train_net.run([*command_line, "--dry-run"])
    assert exit_info.value.code == code
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {error}"


def test_debug_shows_where_a_mistake_was_found(command_line, capsys):
    with pytest.raises(SystemExit) as exit_info:
        train_net.run([*command_line, "--debug", "SOLVER.BASE_LRR", "1"])
    errors = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert "Traceback" in errors and "merge_opts" in errors
    assert errors.splitlines()[-1].startswith("error: unknown config key 'SOLVER.BASE_LRR'")


@pytest.mark.parametrize("arguments", [[], ["--resume", "OUTPUT_DIR", "x"], ["--val", "x.json"]])
def test_without_a_config_the_configs_are_named_and_nothing_is_built(
    arguments, monkeypatch, capsys
):
    monkeypatch.setattr("retinanet_ext.cli.train.launch_job", None)
    with pytest.raises(SystemExit) as exit_info:
        train_net.run(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_info.value.code == 2
    assert line.startswith("error: --config-file is missing; ")
    assert "quickstart.yaml" in line and "retinanet_R_50_FPN_1x.yaml" in line


def test_a_dry_run_leaves_nothing(command_line, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    train_net.run([*command_line, "--dry-run"])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_evaluation_alone_repeats_the_results_of_training(command_line, tmp_path):
    code, text, errors = run(*command_line)
    assert code == 0, errors
    last = json.loads((tmp_path / "output" / "metrics.json").read_text().splitlines()[-1])
    assert len(text.splitlines()) < 40 and "done: 5 iterations" in text
    weights = str(tmp_path / "output" / "model_final.pth")
    code, text, errors = run(*command_line, "--eval-only", "--verbose", "MODEL.WEIGHTS", weights)
    assert code == 0, errors
    assert f"{last['bbox/AP']:.4f},{last['bbox/AP50']:.4f}" in text
