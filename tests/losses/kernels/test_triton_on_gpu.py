"""The focal loss of a GPU, the compiled Triton kernel, equals the chunked one in float64 on a CPU.

Without a GPU (see ``tests/conftest.py``) it is the chunked kernel in the logits' own precision.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from retinanet_ext.losses import conv_focal_loss, sigmoid_focal_loss
from retinanet_ext.losses.kernels import chunked
from retinanet_ext.losses.kernels.dispatch import focal_loss_and_gradient
from tests.losses.kernels.test_triton_focal import CASES

pytestmark = pytest.mark.cuda

A, N = 3, 2
GAMMAS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FORMATS = (torch.contiguous_format, torch.channels_last)


def kernel_of(device: torch.device) -> str:
    return "triton" if device.type == "cuda" else "chunked"


def assert_equals_float64(
    device: torch.device, levels: list[Tensor], labels: Tensor, *rest: object
) -> None:
    """The kernel on ``device`` against float64 on the CPU, given the same (rounded) logits."""
    exact = [x.double() for x in levels]
    expected, gradients = chunked.focal_loss_and_gradient(exact, labels, *rest)
    moved = [x.to(device) for x in levels]
    loss, found = focal_loss_and_gradient(moved, labels.to(device), *rest, kernel=kernel_of(device))
    assert loss.device.type == device.type
    torch.testing.assert_close(loss.double().cpu(), expected, rtol=1e-5, atol=1e-6)
    assert len(found) == len(gradients)
    half = levels[0].dtype.itemsize < 4
    for got, wanted, level in zip(found, gradients, moved, strict=False):
        assert got.dtype == level.dtype and got.device == level.device
        # Exponentials and divisions of a GPU are a few units of the last place off.
        relative, absolute = (1e-2, 1e-6) if half else (3e-5, 1e-7)
        torch.testing.assert_close(got.cpu().double(), wanted, rtol=relative, atol=absolute)


@pytest.mark.parametrize("name", CASES)
def test_cases_of_the_interpreter(gpu: torch.device, name: str):
    levels, labels, *rest = CASES[name]
    assert_equals_float64(gpu, levels, labels, *rest)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_classes", [1, 80, 1203])
def test_classes_precisions_and_layouts(
    gpu: torch.device, num_classes: int, dtype: torch.dtype, memory_format: torch.memory_format
):
    generator = torch.Generator().manual_seed(0)
    shapes = ((13, 10), (7, 5), (4, 3), (1, 2), (1, 1))
    levels = [
        torch.randn(N, A * num_classes, *shape, generator=generator).mul(4).to(dtype)
        for shape in shapes
    ]
    levels = [x.contiguous(memory_format=memory_format) for x in levels]
    anchors = sum(h * w * A for h, w in shapes)
    labels = torch.randint(-1, num_classes + 1, (N, anchors), generator=generator)  # -1: ignored
    labels[torch.rand(N, anchors, generator=generator) < 0.6] = num_classes
    for gamma, alpha in itertools.product(GAMMAS if num_classes == 80 else (2.0, 0.5), (0.25, -1)):
        for with_gradient in (True, False):
            assert_equals_float64(gpu, levels, labels, num_classes, alpha, gamma, with_gradient)
    scaled = (num_classes, 0.25, 2.0, True, 4096.0)
    assert_equals_float64(gpu, levels, labels, *scaled)


def test_gradients_keep_the_layout(gpu: torch.device):
    for memory_format in FORMATS:
        x = torch.randn(2, 4, 5, 6, device=gpu).contiguous(memory_format=memory_format)
        labels = torch.full((2, 30), 4, device=gpu)
        _, (gradient,) = focal_loss_and_gradient([x], labels, 4, 0.25, 2.0, kernel=kernel_of(gpu))
        assert gradient.stride() == x.stride()


def test_same_bits_from_run_to_run(gpu: torch.device):
    x = torch.randn(2, 240, 50, 60, device=gpu)
    labels = torch.randint(-1, 81, (2, 9000), device=gpu)
    runs = [
        focal_loss_and_gradient([x], labels, 80, 0.25, 2.0, kernel=kernel_of(gpu)) for _ in range(3)
    ]
    for loss, (gradient,) in runs[1:]:
        assert torch.equal(loss, runs[0][0]) and torch.equal(gradient, runs[0][1][0])


def test_through_autograd_and_the_fused_convolution(gpu: torch.device):
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 8, *shape, generator=generator) for shape in ((9, 7), (4, 3))]
    weight = torch.randn(A * 5, 8, 3, 3, generator=generator) * 0.3
    bias = torch.randn(A * 5, generator=generator)
    labels = torch.randint(-1, 6, (2, 75 * A), generator=generator)

    def results(device: str | torch.device, dtype: torch.dtype, fused: bool, kernel: str):
        leaves = [x.detach().to(device, dtype).requires_grad_() for x in (*features, weight, bias)]
        *levels, w, b = leaves
        targets = labels.to(device)
        if fused:
            loss = conv_focal_loss(levels, w, b, targets, 5, kernel=kernel, max_chunk_bytes=3000)
        else:
            logits = [torch.nn.functional.conv2d(x, w, b, padding=1) for x in levels]
            loss = sigmoid_focal_loss(logits, targets, 5, kernel=kernel)
        (loss / 3).backward()
        return [loss.detach(), *(x.grad for x in leaves)]

    expected = results("cpu", torch.float64, False, "reference")
    for fused in (False, True):
        for got, wanted in zip(
            results(gpu, torch.float32, fused, kernel_of(gpu)), expected, strict=True
        ):
            error = (got.cpu().double() - wanted).abs().max()
            assert error <= 1e-5 * wanted.abs().max()


LARGE = 17 << 30
"""Bytes that logits and gradient of 2^31 entries, and what they are compared with, need at most."""


@pytest.mark.parametrize("memory_format", FORMATS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "height",
    [2, pytest.param(150, marks=pytest.mark.cuda(needs="a GPU with 16 GiB of free memory"))],
)
def test_more_than_2_to_the_31_entries(
    gpu: torch.device, height: int, memory_format: torch.memory_format
):
    anchors, num_classes, width = 9, 10_000, 160
    shape = (1, anchors * num_classes, height, width)
    entries = shape[1] * height * width
    if height > 2:
        assert entries > 2**31
        free = torch.cuda.mem_get_info()[0]
        if free < LARGE:
            pytest.skip(f"needs {LARGE >> 30} GiB of free GPU memory, there are {free >> 30}")
    torch.manual_seed(0)
    x = torch.empty(shape, dtype=torch.float16, device=gpu, memory_format=memory_format).normal_()
    locations = height * width
    labels = torch.randint(-1, num_classes, (1, locations * anchors), device=gpu)
    settings = (num_classes, 0.25, 2.0, True, 64.0)
    loss, (gradient,) = focal_loss_and_gradient([x], labels, *settings, kernel=kernel_of(gpu))
    assert gradient.shape == x.shape and gradient.stride() == x.stride()

    by_anchor = labels.view(1, locations, anchors)
    total = 0.0
    for anchor in range(anchors):  # each alone is far below 2^31 entries
        channels = slice(anchor * num_classes, (anchor + 1) * num_classes)
        part, _ = chunked.focal_loss_and_gradient(
            [x[:, channels]], by_anchor[:, :, anchor].contiguous(), *settings[:3], False
        )
        total += part.item()
    assert loss.item() == pytest.approx(total, rel=1e-4)

    for anchor, row in ((0, 0), (anchors // 2, height // 2), (anchors - 1, height - 1)):
        channels = slice(anchor * num_classes, (anchor + 1) * num_classes)
        rows = slice(row, row + 1)
        of_row = by_anchor.view(1, height, width, anchors)[:, row, :, anchor].cpu()
        logits = x[:, channels, rows].cpu().double().contiguous()
        _, (wanted,) = chunked.focal_loss_and_gradient([logits], of_row, *settings)
        got = gradient[:, channels, rows].cpu().double()
        torch.testing.assert_close(got, wanted, rtol=1e-2, atol=1e-4)
