"""Training on a GPU: scaled float16, NCCL, exact repetition, averages, validation losses."""

from __future__ import annotations

import copy
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from retinanet_ext.engine.optim.ema import ModelEMA
from retinanet_ext.engine.step.train_step import TrainStep
from retinanet_ext.evaluation.val_loss import validation_losses
from retinanet_ext.random_state import random_state_kept
from tests.helpers.steps import make_batch, make_model, sgd, train

pytestmark = pytest.mark.cuda

ROOT = Path(__file__).resolve().parents[3]


def model_on(device: torch.device, folder: Path) -> nn.Module:
    return make_model(folder).to(device)


@pytest.mark.parametrize("parts", [1, 2])
def test_mixed_precision_learns_and_continues(gpu: torch.device, tmp_path: Path, parts: int):
    half = torch.float16 if gpu.type == "cuda" else torch.bfloat16
    # Not smaller: bfloat16 gradients of a 1 x 1 map of a 1 x 1 map are now and then NaN on CPUs
    # (oneDNN in PyTorch 2.11).
    batches = [make_batch(seed, size=128) for seed in range(4)]
    model, plain = model_on(gpu, tmp_path), model_on(gpu, tmp_path)
    optimizer = sgd(model)
    step = TrainStep(model, batches, optimizer, precision=half, accum_steps=parts)
    assert (step.grad_scaler is not None) == (half == torch.float16)
    if step.grad_scaler is not None:
        # One that does not overflow: each skipped step would be one in which nothing is learned.
        step.use_scaler(torch.amp.GradScaler("cuda", init_scale=256.0))
    train(step, 3)
    assert step.amp_skipped_steps == 0 and not step.last_step_skipped
    train(TrainStep(plain, batches, sgd(plain), accum_steps=parts), 3)
    start = dict(model_on(gpu, tmp_path).named_parameters())
    way, expected = (
        torch.cat(
            [(value - start[name]).detach().flatten() for name, value in x.named_parameters()]
        )
        for x in (model, plain)
    )
    assert (way - expected).norm() <= 0.2 * expected.norm() and expected.norm() > 0

    saved = copy.deepcopy((model.state_dict(), step.state_dict()))
    train(step, 1)
    other = model_on(gpu, tmp_path)
    other.load_state_dict(saved[0])
    resumed = TrainStep(other, batches[3:], sgd(other), precision=half, accum_steps=parts)
    resumed.load_state_dict(saved[1])
    if step.grad_scaler is not None:
        assert resumed.grad_scaler.get_scale() == 256.0
    train(resumed, 1)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.cuda(needs="CUDA, which float16 is for")
def test_a_scale_that_overflows_is_lowered(gpu: torch.device, tmp_path: Path):
    model = model_on(gpu, tmp_path)
    before = copy.deepcopy(model.state_dict())
    step = TrainStep(model, [make_batch(0), make_batch(1)], sgd(model), precision=torch.float16)
    step.use_scaler(torch.amp.GradScaler("cuda", init_scale=2.0**40))
    train(step, 1)
    assert step.last_step_skipped and step.amp_skipped_steps == 1
    assert step.grad_scaler.get_scale() == 2.0**39
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name


DISTRIBUTED = """
import os, sys
from pathlib import Path
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from detectron2.utils import comm
from retinanet_ext.engine.step.train_step import TrainStep
from tests.helpers.steps import make_batch, make_model, sgd, train

folder, device = Path(sys.argv[1]), torch.device(sys.argv[2])
on_gpu = device.type == "cuda"
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
if on_gpu:
    torch.cuda.set_device(0)
dist.init_process_group(
    "nccl" if on_gpu else "gloo", f"file://{folder}/store", world_size=1, rank=0
)
comm.create_local_process_group(1)
batches = [make_batch(seed) for seed in range(2)]
states = []
for wrapped in (False, True):
    model = make_model(folder).to(device)
    optimizer = sgd(model)
    ids = {"device_ids": [0]} if on_gpu else {}
    outer = DistributedDataParallel(model, **ids) if wrapped else model
    for parts in (1, 2):
        train(TrainStep(outer, batches[parts - 1 :], optimizer, accum_steps=parts), 1)
    states.append(model.state_dict())
for name, value in states[0].items():
    torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)
total = torch.ones(3, device=device)
dist.all_reduce(total)
assert total.tolist() == [1, 1, 1] and comm.all_gather("x") == ["x"]
dist.destroy_process_group()
print("equal", flush=True)
os._exit(0)
"""

DETERMINISTIC = """
import sys
from pathlib import Path
import torch
from retinanet_ext.engine.step.reproducibility import make_deterministic
from retinanet_ext.engine.step.train_step import TrainStep
from tests.helpers.steps import make_batch, make_cfg, make_model, sgd, train

folder, device = Path(sys.argv[1]), sys.argv[2]
cfg = make_cfg(folder)
cfg.DETERMINISTIC, cfg.SEED, cfg.CUDNN_BENCHMARK = True, 1, False
make_deterministic(cfg)
runs = []
for _ in range(2):
    model = make_model(folder).to(device)
    train(TrainStep(model, [make_batch(seed) for seed in range(3)], sgd(model)), 3)
    runs.append(model.state_dict())
    model.eval()
    with torch.no_grad():
        runs[-1]["scores"] = model(make_batch(9, images=1))[0]["instances"].scores
start = make_model(folder).to(device).state_dict()
assert any(not torch.equal(runs[0][name], value) for name, value in start.items())
for name, value in runs[0].items():
    assert torch.equal(runs[1][name], value), name
print("equal")
"""


def run_script(script: str, folder: Path, device: torch.device) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if inherited := os.environ.get("PYTHONPATH"):
        environment["PYTHONPATH"] += os.pathsep + inherited
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(folder), device.type],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0 and "equal" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_distributed_step_equals_the_plain_one(gpu: torch.device, tmp_path: Path):
    run_script(DISTRIBUTED, tmp_path, gpu)


@pytest.mark.slow
def test_deterministic_runs_give_the_same_bits(gpu: torch.device, tmp_path: Path):
    run_script(DETERMINISTIC, tmp_path, gpu)


def test_average_of_the_weights(gpu: torch.device, tmp_path: Path):
    models = [make_model(tmp_path), model_on(gpu, tmp_path)]
    averages = [ModelEMA(model, 0.9) for model in models]
    for seed in range(3):
        for model, average in zip(models, averages, strict=True):
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for x in model.parameters():
                    x.add_(torch.randn(x.shape, generator=generator).to(x.device))
            average.update()
    on_cpu, on_gpu = averages
    assert on_gpu.averages.keys() == on_cpu.averages.keys()
    for name, value in on_cpu.averages.items():
        assert on_gpu.averages[name].device.type == gpu.type
        torch.testing.assert_close(on_gpu.averages[name].cpu(), value, rtol=1e-5, atol=1e-6)
    name, weight = next(iter(models[1].named_parameters()))
    before = weight.detach().clone()
    with on_gpu.applied():
        assert torch.equal(weight, on_gpu.averages[name])
    assert torch.equal(weight, before)

    restored = ModelEMA(models[1], 0.9)
    restored.load_state_dict(copy.deepcopy(on_gpu.state_dict()))
    assert all(torch.equal(restored.averages[k], v) for k, v in on_gpu.averages.items())


def test_validation_losses_equal_the_cpus(gpu: torch.device, tmp_path: Path):
    loader = [make_batch(seed) for seed in range(2)]
    # In float64: the networks round differently.
    expected = validation_losses(make_model(tmp_path).double(), loader)
    model = model_on(gpu, tmp_path).double()
    before = [x.clone() for x in (*model.parameters(), *model.buffers())]
    random_state = torch.cuda.get_rng_state() if gpu.type == "cuda" else torch.get_rng_state()
    got = validation_losses(model, loader)
    assert got == pytest.approx(expected, rel=1e-5) and math.isfinite(got["total"])
    after = torch.cuda.get_rng_state() if gpu.type == "cuda" else torch.get_rng_state()
    assert torch.equal(after, random_state)
    for now, then in zip((*model.parameters(), *model.buffers()), before, strict=True):
        assert torch.equal(now, then)


def test_random_state_is_kept(gpu: torch.device):
    def draw() -> list[float]:
        of_device = torch.rand(2, device=gpu).tolist()
        return [*of_device, *torch.rand(2).tolist(), random.random(), np.random.rand()]

    def seed() -> None:
        torch.manual_seed(3), random.seed(3), np.random.seed(3)

    seed()
    expected = draw()
    seed()
    devices = [torch.cuda.current_device()] if gpu.type == "cuda" else []
    with random_state_kept(devices):
        assert draw() == expected
        torch.manual_seed(99)
        draw()
    assert draw() == expected
