"""Options that all commands share mean the same in each; errors end each in the same way."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retinanet_ext.cli import COMMANDS, _build_parser, main
from retinanet_ext.cli.common import (
    check_device,
    config_options,
    load_cfg,
    run_guarded,
)
from retinanet_ext.config.shipped import config_names, find_config
from retinanet_ext.data.datasets.register import register_builtin_datasets
from retinanet_ext.errors import ConfigError, InputError, TrainingFailed

ROOT = Path(__file__).resolve().parents[2]
SHARED = ["--config-file", "--data-root", "--device", "--import", "--allow-unsafe-yaml", "--debug"]
NEEDED = {
    "draw-detections": ["--weights", "w.pth", "--images", "i.png", "--output", "o.png"],
    "predict": ["photos"],
    "show-data": ["--output", "o.png"],
}
LOADING = [
    *([x] for x in COMMANDS if x not in ("anchors", "convert", "replay-step", "weights")),
    ["anchors", "show"],
    ["anchors", "optimise"],
]


@pytest.fixture(autouse=True)
def default_root():
    """Built-in datasets are where they were."""
    yield
    register_builtin_datasets()


@pytest.mark.parametrize("command", LOADING, ids=" ".join)
def test_every_command_that_loads_a_config_has_the_same_options(command):
    words = ["--config-file", "c.yaml", "--data-root", "d", "--device", "cpu", "--import", "a"]
    words += ["--import", "b", "--allow-unsafe-yaml", "--debug"]
    # The other words of these are a model and sources.
    pairs_follow = "--opts" if command[0] in ("export", "predict", "report", "serve") else "--"
    words += [*NEEDED.get(command[0], []), pairs_follow, "SEED", "1"]
    args = _build_parser(command[0]).parse_args([*command, *words])
    assert (args.config_file, args.data_root, args.device) == ("c.yaml", "d", "cpu")
    assert args.imports == ["a", "b"] and args.allow_unsafe_yaml and args.debug
    assert args.opts in (["SEED", "1"], ["--", "SEED", "1"])  # by the version of Python


def options_help(command: list[str], capsys: pytest.CaptureFixture) -> dict[str, str]:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = " ".join(capsys.readouterr().out.split("\n\n", 1)[1].split())
    return {option: text.split(f" {option} ")[1][:60] for option in SHARED[1:]}


def test_and_they_are_described_in_the_same_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    described = [options_help(command, capsys) for command in LOADING]
    assert all(words == described[0] for words in described)


def test_a_command_is_imported_only_when_it_is_chosen():
    code = (
        "import sys; from retinanet_ext.cli import _build_parser; _build_parser('replay-step');"
        "print(*(name for name in sys.modules if name.startswith('retinanet_ext.cli.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {name.rpartition(".")[2] for name in done.stdout.split()} == {"replay_step", "common"}


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(parents=[config_options(required=False)])
    return parser.parse_args(words)


def test_the_config_is_file_then_pairs_then_device(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("SEED: 3\nOUTPUT_DIR: a\nMODEL: {DEVICE: cuda}\n")
    words = ("--config-file", str(config), "--device", "cpu", "OUTPUT_DIR", "b")
    cfg = load_cfg(parsed(*words, "MODEL.DEVICE", "cuda"), defaults=["SEED", "1", "VERSION", "2"])
    assert (cfg.SEED, cfg.OUTPUT_DIR, cfg.MODEL.DEVICE) == (3, "b", "cpu")


def test_two_dashes_may_stand_before_the_pairs():
    assert load_cfg(parsed("--debug", "--", "SEED", "5")).SEED == 5


def test_unknown_keys_and_wrong_types_are_the_users_to_read():
    with pytest.raises(ConfigError, match=r"SOLVER\.BASE_LRR.*Did you mean 'SOLVER\.BASE_LR'"):
        load_cfg(parsed("SOLVER.BASE_LRR", "1"))
    with pytest.raises(InputError, match=r"on the command line: .*SOLVER\.MAX_ITER"):
        load_cfg(parsed("SOLVER.MAX_ITER", "many"))


def test_a_module_of_the_users_is_imported_before_the_config_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("adds_nothing.py").write_text("raise ImportError('not today')\n")
    with pytest.raises(ImportError, match="--import adds_nothing failed: not today"):
        load_cfg(parsed("--import", "adds_nothing", "NO.SUCH.KEY", "1"))


def test_devices(monkeypatch):
    check_device("")
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="'cuda:1', but PyTorch finds no GPU here"):
        check_device("cuda:1")
    with pytest.raises(InputError, match="--device is 'gpu'; use cpu or cuda"):
        check_device("gpu")


def test_shipped_configs_are_there_as_written():
    names = config_names()
    assert any(name.endswith("quickstart.yaml") for name in names)
    assert all(os.path.isfile(find_config(name)) for name in names)


def raising(error: BaseException):
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    "error, code, sentence",
    [
        (InputError("a value"), 2, "a value"),
        (ConfigError("key 'A B'"), 2, "key 'A B'"),
        (TrainingFailed("no memory"), 1, "no memory"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.txt"), 2, "'x.txt': No such file"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
    ],
)
def test_errors_for_the_user_are_one_sentence(capsys, error, code, sentence):
    assert run_guarded(raising(error), prog="tool") == code
    assert capsys.readouterr().err == f"tool: error: {sentence}\n"


@pytest.mark.parametrize(
    "bug",
    [
        ValueError("expected a tensor of two dimensions"),  # as torch would
        KeyError("a b"),
        OSError("no file is named in this one"),
        ImportError("cannot import name x"),
        RuntimeError("CUDA error: an illegal access"),
    ],
    ids=lambda bug: type(bug).__name__,
)
def test_a_bug_keeps_its_traceback_whatever_its_words(capsys, bug):
    with pytest.raises(type(bug)) as caught:
        run_guarded(raising(bug))
    assert caught.value is bug and capsys.readouterr().err == ""


def test_the_status_of_a_command_is_kept():
    assert run_guarded(lambda: None) == 0
    assert run_guarded(lambda: 130) == 130


def test_debug_shows_the_traceback_and_keeps_the_status(capsys):
    assert run_guarded(raising(InputError("a value")), debug=True) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "error: a value"


def test_ctrl_c_is_no_traceback(capsys):
    def command():
        raise KeyboardInterrupt

    assert run_guarded(command) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_is_gone_ends_a_command_in_silence(lines):
    code = (
        "import sys; from retinanet_ext.cli.common import run_guarded;"
        "sys.stdin.read();"  # until the reader is gone
        f"sys.exit(run_guarded(lambda: print(*range({lines}), sep=chr(10))))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.close()
    said = process.stderr.read().decode()
    assert (process.wait(), said) == (141, "")


def test_a_pipe_that_is_not_the_standard_output_is_a_bug(capsys):
    def command() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        run_guarded(command)
