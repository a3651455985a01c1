"""``retinanet-ext benchmark`` from its words to its table, json and chart."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from retinanet_ext.benchmark import measure, runner
from retinanet_ext.benchmark.measure import Peak
from retinanet_ext.benchmark.tasks import inference, training_step
from retinanet_ext.cli import main
from retinanet_ext.cli.benchmark import run_tasks

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs" / "retinanet_R_50_FPN_1x.yaml")
# fmt: off
SMALL = [
    "--device", "cpu", "--size", "64x96", "--classes", "3", "--gt", "4", "--repeats", "1",
    "--images", "5",
]
SMALL_MODEL = [
    "MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64",
    "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RETINANET.NUM_CONVS", "1",
]
# fmt: on
TASKS = [
    "loss",
    "labelling",
    "decode",
    "training-step",
    "training-loop",
    "inference",
    "predict",
    "evaluation",
    "many-classes",
]


def benchmark(*words: str) -> int:
    return main(["benchmark", *SMALL, *words, "--", *SMALL_MODEL])


@pytest.fixture
def quick(monkeypatch):
    """No further processes, fewer rounds."""
    monkeypatch.setattr(runner, "measure_in_own_process", lambda *order: Peak(2**20, "m"))
    monkeypatch.setattr(measure, "WARM_UP_ROUNDS", 1)
    monkeypatch.setattr(inference, "LARGE_BATCH", 2)


def test_the_number_of_many_classes_can_be_chosen(quick, capsys):
    assert benchmark("--classes", "5", "--only", "many-classes") == 0
    assert "last conv + loss, K = 5 " in capsys.readouterr().out


def test_everything_is_measured_printed_and_written(quick, tmp_path, capsys):
    files = {name: tmp_path / "new" / f"out.{name}" for name in ("json", "png")}
    outputs = ["--json", str(files["json"]), "--plot", str(files["png"])]
    # The names leave out variants of a task, which may have to compile.
    assert benchmark("--config-file", CONFIG, *outputs, "--only", *TASKS) == 0
    out = capsys.readouterr().out
    for row in (
        "loss, forward + backward ",
        "loss, forward + backward: memory",
        "anchor labelling, 4 gt per image",
        "anchor labelling, 1,000 gt per image: memory",
        "decode, one image",
        "training step, batch 2 ",
        "training step, batch 2: memory",
        "inference, batch 1",
        "inference, batch 2",
        "predict, 5 files, batch 8",
        "COCO evaluation, 5 images",
        "last conv + loss, K = 3 ",
        "last conv + loss, K = 3: memory",
    ):
        assert f"\n{row}" in out, row
    assert "R-50.pkl of the config is left out" in out and "[9/9] many-classes" in out
    content = json.loads(files["json"].read_text())
    assert content["complete"] is True and set(content["agreement"]) == set(TASKS)
    rows = content["rows"]
    assert {row["task"] for row in rows} == set(TASKS)
    peers = {(row["task"], row["against"]) for row in rows}
    assert {("inference", "torchvision"), ("training-step", "torchvision")} <= peers
    # Engines and bfloat16 are not everywhere.
    assert all(row["ours"]["samples"] for row in rows if not row["absent"])
    assert {row["task"] for row in rows if row["absent"]} <= {"inference"}
    assert Image.open(files["png"]).format == "PNG"


def test_without_a_config_file_it_is_retinanet_r50(quick, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(
        "retinanet_ext.cli.benchmark.run_tasks", lambda bench, names: seen.append((bench, names))
    )
    assert main(["benchmark", "--device", "cpu"]) == 0
    bench, names = seen[0]
    cfg = bench.settings.cfg
    assert cfg.MODEL.META_ARCHITECTURE == "RetinaNetExt" and cfg.MODEL.RESNETS.DEPTH == 50
    assert cfg.MODEL.FPN.IN_FEATURES == ["res3", "res4", "res5"]
    assert bench.settings.num_classes == 80 and bench.settings.size == (800, 1216)
    assert names[: len(TASKS)][:4] == TASKS[:4] and set(TASKS) <= set(names)
    assert bench.settings.torchvision and "random weights" not in capsys.readouterr().out


def test_only_and_keys_and_no_torchvision(quick, capsys):
    assert benchmark("--config-file", CONFIG, "--no-torchvision", "--only", "decode") == 0
    out = capsys.readouterr().out
    assert "decode, one image" in out and "training step" not in out
    assert "loss, forward" not in out and "64 x 96, batch 2, 3 classes" in out


def test_engines_can_be_left_out(quick, capsys):
    assert benchmark("--no-torchvision", "--no-engines", "--only", "inference") == 0
    out = capsys.readouterr().out
    assert "inference, batch 1 " in out and "ONNX" not in out and "bfloat16" not in out


def test_autocast_auto_is_said_and_has_no_part_in_the_comparison(monkeypatch, capsys):
    monkeypatch.setattr("retinanet_ext.cli.benchmark.best_autocast", lambda device: "bfloat16")
    seen = []
    monkeypatch.setattr(
        "retinanet_ext.cli.benchmark.run_tasks", lambda bench, names: seen.append(bench)
    )
    words = ["--device", "cpu", "--only", "inference", "--", "MODEL.SPEEDUPS.AUTOCAST", "auto"]
    assert main(["benchmark", *words]) == 0
    assert "AUTOCAST auto is bfloat16 here" in capsys.readouterr().out
    assert seen[0].settings.cfg.MODEL.SPEEDUPS.AUTOCAST == ""


def test_a_disagreement_is_named_and_nothing_is_compared(quick, monkeypatch, tmp_path, capsys):
    build_pair = training_step.build_pair

    def perturbed(*args):
        theirs, ours = build_pair(*args)
        with torch.no_grad():
            ours.head.cls_score.weight *= 1.01
        return theirs, ours

    monkeypatch.setattr(training_step, "build_pair", perturbed)
    path = tmp_path / "out.json"
    assert benchmark("--no-torchvision", "--json", str(path), "--only", "training-step") == 1
    out = capsys.readouterr().out
    assert "DISAGREEMENT" in out and "loss_cls differs by" in out
    assert "faster" not in out and "slower" not in out and not path.exists()


def test_ctrl_c_keeps_what_was_measured(quick, monkeypatch, tmp_path, capsys):
    def interrupted(bench, names):
        run_tasks(bench, ["decode"])
        raise KeyboardInterrupt

    monkeypatch.setattr("retinanet_ext.cli.benchmark.run_tasks", interrupted)
    path = tmp_path / "out.json"
    assert benchmark("--json", str(path)) == 130
    assert "decode, one image" in capsys.readouterr().out.split("interrupted")[1]
    content = json.loads(path.read_text())
    assert content["complete"] is False and len(content["rows"]) == 1


@pytest.mark.slow
def test_memory_is_read_in_processes_of_their_own(monkeypatch, tmp_path):
    path = tmp_path / "out.json"
    assert benchmark("--json", str(path), "--only", "loss") == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["kind"] for row in rows] == ["time", "memory"]
    assert all(row["ours"]["samples"] for row in rows)


@pytest.fixture
def unmeasured(monkeypatch):
    """Mistakes must show before anything is measured."""

    def run_tasks(*_):
        raise AssertionError("measured")

    monkeypatch.setattr("retinanet_ext.cli.benchmark.run_tasks", run_tasks)


@pytest.mark.parametrize(
    "words",
    [
        ("--size", "800"),
        ("--size", "0x800"),
        ("--size", "axb"),
        ("--batch", "0"),
        ("--batch", "two"),
        ("--repeats", "-1"),
        ("--classes", "0"),
    ],
    ids=" ".join,
)
def test_senseless_values_are_refused(unmeasured, capsys, words):
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words[0] in error and words[1] in error


@pytest.mark.parametrize(
    "words,parts",
    [
        (("--only", "decod"), ("'decod'", "Did you mean 'decode'", "training-step")),
        (("--plot", "chart.txt"), ("'chart.txt'", ".png")),
        (("--config-file", "no.yaml"), ("no.yaml",)),
        (("MODEL.NO_KEY", "1"), ("MODEL.NO_KEY",)),
        (("--only", "loss", "MODEL.NO_KEY", "1"), ("--only loss -- MODEL.NO_KEY",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_mistakes_are_one_sentence(unmeasured, capsys, words, parts):
    assert main(["benchmark", "--device", "cpu", *words]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert all(part in error for part in parts), error


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_path_that_cannot_be_written_is_named(unmeasured, tmp_path, capsys, option):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "out.png"
    assert main(["benchmark", "--device", "cpu", option, str(path)]) == 2
    error = capsys.readouterr().err
    assert option in error and str(path) in error and len(error.strip().splitlines()) == 1


def test_checking_a_path_leaves_no_file(monkeypatch, tmp_path):
    def interrupted(*_):
        assert not (tmp_path / "out.png").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("retinanet_ext.cli.benchmark.run_tasks", interrupted)
    assert main(["benchmark", "--device", "cpu", "--plot", str(tmp_path / "out.png")]) == 130
    assert not (tmp_path / "out.png").exists()


def test_cuda_without_a_gpu_is_refused(unmeasured, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["benchmark", "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert "--device is 'cuda'" in error and "--device cpu" in error


def test_another_architecture_is_refused(unmeasured, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("MODEL:\n  META_ARCHITECTURE: GeneralizedRCNN\n")
    assert main(["benchmark", "--config-file", str(config)]) == 2
    assert "GeneralizedRCNN" in capsys.readouterr().err


def test_missing_matplotlib_shows_before_measuring(unmeasured, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["benchmark", "--device", "cpu", "--plot", "p.png"]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_weights_of_the_command_line_are_kept(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(
        "retinanet_ext.cli.benchmark.run_tasks", lambda bench, names: seen.append(bench)
    )
    words = ["--config-file", CONFIG, "--only", "decode", "--", "MODEL.WEIGHTS", "model.pth"]
    assert main(["benchmark", "--device", "cpu", *words]) == 0
    assert seen[0].settings.cfg.MODEL.WEIGHTS == "model.pth"
    assert "left out" not in capsys.readouterr().out
