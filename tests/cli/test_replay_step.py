"""``retinanet-ext replay-step``: what it prints, and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retinanet_ext.cli import main
from retinanet_ext.engine.failures.snapshot import pack_batch
from tests.helpers.steps import make_batch, make_cfg, make_model


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("snapshot")
    return {
        "config": make_cfg(folder).dump(),
        "iteration": 12,
        "rank": 0,
        "world_size": 1,
        "run_seed": 5,
        "accum_steps": 1,
        "precision": "",
        "scale": None,
        "losses": {"loss_cls": float("nan")},
        "model": make_model(folder).state_dict(),
        "batch": pack_batch(make_batch(0, images=2)),
    }


def run(snapshot: dict, path: Path, *options: str) -> int:
    torch.save(snapshot, path)
    return main(["replay-step", str(path), *options])


def test_finite_step_is_status_0(snapshot: dict, tmp_path: Path, capsys):
    assert run(snapshot, tmp_path / "s.pth", "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "iteration 12 in float32, images: 0_0.png, 0_1.png"
    assert lines[1].startswith("loss_cls: 0.") and lines[1].endswith("(in the run: nan)")
    assert lines[-1] == "all losses, outputs and gradients are finite"


def test_step_that_is_not_finite_is_status_1(snapshot: dict, tmp_path: Path, capsys):
    model = dict(snapshot["model"])
    model["head.cls_score.weight"] = model["head.cls_score.weight"] * float("inf")
    assert run({**snapshot, "model": model}, tmp_path / "s.pth") == 1
    out = capsys.readouterr().out
    assert "not finite before the step: head.cls_score.weight; an earlier step" in out
    assert "output that is not finite: head.cls_score (its inputs are finite)" in out
    assert "gradient that is not finite:" in out


def test_bfloat16_is_repeated_in_bfloat16(snapshot: dict, tmp_path: Path, capsys):
    run({**snapshot, "precision": "bfloat16"}, tmp_path / "s.pth")
    assert "in bfloat16" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_unknown_device_is_refused(device: str, tmp_path: Path, capsys):
    assert main(["replay-step", str(tmp_path / "s.pth"), "--device", device]) == 2
    assert f"--device is '{device}'; use cpu or cuda" in capsys.readouterr().err
