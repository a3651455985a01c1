"""DETERMINISTIC switches PyTorch; the CPU's fast paths repeat themselves bit by bit anyway."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from retinanet_ext.engine.step.reproducibility import (
    CUBLAS_KEY,
    SeedEachStep,
    make_deterministic,
    step_seed,
)
from retinanet_ext.losses import sigmoid_focal_loss
from retinanet_ext.losses.conv_focal import conv_focal_loss
from retinanet_ext.losses.kernels import chunked
from retinanet_ext.modeling.speedups import winograd
from retinanet_ext.modeling.speedups.sparse_tower import outputs_at

REPEATS = 3


@pytest.fixture(autouse=True)
def restored(monkeypatch) -> Iterator[None]:
    """Put back what make_deterministic changes for good, and the number of threads."""
    monkeypatch.setenv(CUBLAS_KEY, "x")
    monkeypatch.delenv(CUBLAS_KEY)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    fills, threads = torch.utils.deterministic.fill_uninitialized_memory, torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]
    torch.utils.deterministic.fill_uninitialized_memory = fills
    torch.set_num_threads(threads)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request) -> None:
    torch.set_num_threads(request.param)


def make_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_labels(num_images: int, num_anchors: int, num_classes: int) -> Tensor:
    """Mostly background, with a few objects and ignored anchors."""
    dice = torch.rand(num_images, num_anchors, generator=torch.Generator().manual_seed(1))
    labels = (dice * 1e6).long() % num_classes
    return torch.where(dice < 0.98, num_classes, torch.where(dice < 0.99, -1, labels))


def assert_repeats(run: Callable[[], list[Tensor]]) -> None:
    first = run()
    assert first and all(x.isfinite().all() for x in first)
    for _ in range(REPEATS - 1):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def with_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """What a function puts out, and the gradients of its inputs."""
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    output = function(*inputs)
    weights = make_tensor(*output.shape, seed=9)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), inputs)]


def test_off_changes_nothing(cfg):
    make_deterministic(cfg)
    assert not torch.are_deterministic_algorithms_enabled()
    assert CUBLAS_KEY not in os.environ


def test_on_switches_everything(cfg):
    torch.backends.cudnn.benchmark = True
    cfg.DETERMINISTIC = True
    make_deterministic(cfg)
    make_deterministic(cfg)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ[CUBLAS_KEY] == ":4096:8"


def test_an_operation_without_a_deterministic_way_is_named(cfg):
    cfg.DETERMINISTIC = True
    make_deterministic(cfg)
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def test_what_contradicts_it_is_refused(cfg, monkeypatch):
    cfg.DETERMINISTIC = True
    monkeypatch.setenv(CUBLAS_KEY, ":16:8")
    make_deterministic(cfg)
    torch.use_deterministic_algorithms(False)
    monkeypatch.setenv(CUBLAS_KEY, ":0:0")
    with pytest.raises(ValueError, match=r"CUBLAS_WORKSPACE_CONFIG is ':0:0'; unset it"):
        make_deterministic(cfg)
    cfg.SEED = -1
    with pytest.raises(ValueError, match="SEED is -1"):
        make_deterministic(cfg)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_focal_loss_does_not_depend_on_which_thread_is_faster(threads, monkeypatch, layout):
    rng, plain = random.Random(0), chunked._chunk

    def at_some_time(*args, **kwargs):
        time.sleep(rng.random() * 0.002)
        return plain(*args, **kwargs)

    monkeypatch.setattr(chunked, "_chunk", at_some_time)
    monkeypatch.setitem(chunked.CHUNK, "cpu", 1 << 13)
    # In double precision the order of a sum shows; float32 would round it away.
    logits = make_tensor(2, 9 * 20, 24, 32).double().contiguous(memory_format=layout)
    labels = make_labels(2, 9 * 24 * 32, 20)

    def loss(x: Tensor) -> Tensor:
        return sigmoid_focal_loss([x], labels, 20, kernel="chunked")

    assert_repeats(lambda: with_gradients(loss, logits))


def test_the_fused_convolution_and_loss_repeat(threads):
    x, weight, bias = make_tensor(2, 16, 12, 16), make_tensor(3 * 40, 16, 3, 3), make_tensor(120)
    labels = make_labels(2, 3 * 12 * 16, 40)

    def loss(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return conv_focal_loss([x], 0.1 * weight, bias, labels, 40, max_chunk_bytes=1 << 15)

    assert_repeats(lambda: with_gradients(loss, x, weight, bias))


def test_the_sparse_box_subnet_repeats(threads):
    torch.manual_seed(0)
    convs = [nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 36, 3, padding=1)]
    features = [make_tensor(2, 32, 20, 24), make_tensor(2, 32, 10, 12)]
    anchors = torch.randperm(5400, generator=torch.Generator().manual_seed(0))[:300]
    images = anchors % 2

    def run() -> list[Tensor]:
        def deltas(*features: Tensor) -> Tensor:
            found = outputs_at(convs, features, images, anchors, [9, 9], max_share=1.0)
            assert found is not None
            return found

        parameters = [p for conv in convs for p in conv.parameters()]
        for parameter in parameters:
            parameter.grad = None
        outputs = with_gradients(deltas, *features)
        (deltas(*features) ** 2).sum().backward()
        return [*outputs, *(p.grad for p in parameters)]

    assert_repeats(run)


@pytest.mark.skipif(not winograd.is_available(), reason="this PyTorch has no NNPACK")
def test_winograd_repeats(threads):
    inputs = make_tensor(2, 96, 40, 52), make_tensor(64, 96, 3, 3), make_tensor(64)
    assert_repeats(lambda: with_gradients(winograd.conv3x3, *inputs))


@pytest.mark.parametrize(
    ("num_threads", "deterministic"),
    [(1, True), pytest.param(2, False, marks=pytest.mark.slow)],
)
def test_a_whole_step_repeats(cfg, num_threads, deterministic):
    torch.set_num_threads(num_threads)
    cfg.DETERMINISTIC = deterministic
    make_deterministic(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    state = {name: x.clone() for name, x in model.state_dict().items()}
    batch = []
    for seed in range(2):
        truth = Instances((64, 64))
        truth.gt_boxes = Boxes(torch.tensor([[5.0, 9.0, 50.0, 61.0], [30.0, 8.0, 60.0, 33.0]]))
        truth.gt_classes = torch.tensor([0, 2])
        image = (make_tensor(3, 64, 64, seed=seed) * 50 + 128).clamp(0, 255)
        batch.append({"image": image, "instances": truth})

    def run() -> list[Tensor]:
        model.load_state_dict(state)
        model.zero_grad()
        with EventStorage():
            losses = model(batch)
        sum(losses.values()).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return [*(x.detach() for x in losses.values()), *gradients]

    assert_repeats(run)


def drawn(run_seed, iteration):
    hook = SeedEachStep()
    hook.trainer = SimpleNamespace(run_seed=run_seed, iter=iteration)
    hook.before_step()
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_an_iteration_draws_the_same_whatever_came_before():
    first = drawn(7, 3)
    torch.rand(100), np.random.rand(10), random.random()
    assert drawn(7, 3) == first


def test_iterations_and_seeds_draw_other_numbers():
    draws = [drawn(7, 3), drawn(7, 4), drawn(8, 3)]
    for numbers in zip(*draws, strict=True):
        assert len(set(numbers)) == 3


def test_processes_have_seeds_of_their_own():
    seeds = {step_seed(7, rank, i) for rank in range(8) for i in range(100)}
    assert len(seeds) == 800
    assert all(0 <= seed < 2**32 for seed in seeds)
