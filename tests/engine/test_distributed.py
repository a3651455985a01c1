"""Two processes on a CPU train the same network as one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

ROOT = Path(__file__).resolve().parents[2]


def final_model(config_file, data_root, output, processes, opts):
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(config_file)]
    command += ["--data-root", str(data_root), "--num-gpus", str(processes), "--dist-url", "auto"]
    subprocess.run([*command, "OUTPUT_DIR", str(output), *opts], cwd=ROOT, check=True)
    return torch.load(output / "model_final.pth")["model"]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_total_batch(cfg, tmp_path, tiny_root, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Smooth L1 with a wide bend: the sign of an error near 0, L1's gradient, is rounding.
    cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA = 1.0
    # A norm without statistics over the batch, which are each process's own.
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = cfg.MODEL.RETINANET.NORM = "GN"
    start = tmp_path / "start.pth"
    torch.save(build_model(cfg).state_dict(), start)
    config_file = tmp_path / "config.yaml"
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("bccd_train",), ()
    config_file.write_text(cfg.dump())

    opts = ["MODEL.WEIGHTS", str(start), "SOLVER.MAX_ITER", "5", "SOLVER.BASE_LR", "0.002"]
    one, two = (
        final_model(config_file, tiny_root, tmp_path / f"by_{count}", count, opts)
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
