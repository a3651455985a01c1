"""The Triton kernel equals the chunked one under the interpreter, and compiles for GPUs.

Triton decides when it is imported whether to interpret, so that happens in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retinanet_ext.losses import sigmoid_focal_loss
from retinanet_ext.losses.kernels import chunked

pytest.importorskip("triton", reason="Triton is not installed")

ROOT = Path(__file__).resolve().parents[3]
A, K, N = 3, 7, 2
SHAPES = ((6, 5), (3, 3), (1, 2))
GAMMAS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)


def problem(num_classes: int = K, spread: float = 4.0):
    generator = torch.Generator().manual_seed(0)
    levels = [
        torch.randn(N, A * num_classes, h, w, generator=generator) * spread for h, w in SHAPES
    ]
    anchors = sum(h * w * A for h, w in SHAPES)
    labels = torch.randint(-1, num_classes + 1, (N, anchors), generator=generator)
    labels[torch.rand(N, anchors, generator=generator) < 0.6] = num_classes
    return levels, labels


def cases() -> dict[str, tuple]:
    """Arguments of focal_loss_and_gradient by name."""
    levels, labels = problem()
    found = {
        f"alpha {alpha} gamma {gamma}": (levels, labels, K, alpha, gamma)
        for gamma in GAMMAS
        for alpha in (0.25, -1)
    }
    for dtype in (torch.bfloat16, torch.float16):
        for scale in (1.0, 4096.0):
            half = [x.to(dtype) for x in levels]
            found[f"{dtype} scale {scale}"] = (half, labels, K, 0.25, 2.0, True, scale)
    for gamma in GAMMAS:
        saturated = [x.sign() * 100 for x in levels]
        found[f"saturated gamma {gamma}"] = (saturated, labels, K, 0.25, gamma)
    moved = [x.contiguous(memory_format=torch.channels_last) for x in levels]
    found["channels_last"] = (moved, labels, K, 0.25, 2.0)
    wider = [torch.cat([x, x], 3)[:, :, :, : x.shape[3]] for x in levels]
    found["strided"] = (wider, labels, K, 0.25, 2.0)
    found["strided images"] = (
        [torch.cat([x, x], 1)[:, : A * K] for x in levels],
        labels,
        K,
        0.5,
        1.0,
    )
    found["int32 labels of a slice"] = (
        levels,
        torch.stack([labels, labels], 2)[..., 0].int(),
        K,
        0.25,
        2.0,
    )
    found["without gradient"] = (levels, labels, K, 0.25, 2.0, False)
    found["float64"] = ([x.double() for x in levels], labels, K, 0.25, 2.0)
    found["all ignored"] = (levels, torch.full_like(labels, -1), K, 0.25, 2.0)
    # More classes than a tile, and than a program takes; one class; a list of anchors.
    found["many classes"] = (*problem(100), 100, 0.25, 2.0)
    found["one class"] = (*problem(1), 1, 0.25, 2.0)
    rows = torch.randn(300, K, 1, 1, generator=torch.Generator().manual_seed(1))
    found["a list of anchors"] = (
        [rows],
        torch.arange(-1, 299).view(-1, 1) % (K + 2) - 1,
        K,
        0.25,
        2.0,
    )
    found["no images"] = ([x[:0] for x in levels], labels[:0], K, 0.25, 2.0)
    return found


CASES = cases()

INTERPRET = """
import sys
import torch
from retinanet_ext.losses import conv_focal_loss, sigmoid_focal_loss
from retinanet_ext.losses.kernels.triton_focal import INTERPRETED, focal_loss_and_gradient

assert INTERPRETED
given, found = torch.load(sys.argv[1])
results = {name: focal_loss_and_gradient(*arguments) for name, arguments in given.items()}

# Three images 2^30 entries apart: memory that is reserved but, between them, never used.
levels, labels, k = found[0], found[1], found[2]
three = torch.cat([levels[0], levels[0][:1]])
near = torch.cat([labels, labels[:1]])[:, : three[0].numel() // k]
far = torch.empty(2**31 + 1000, dtype=torch.float16)
x = far.as_strided(three.shape, (2**30, *three.stride()[1:])).copy_(three)
results["far apart"] = focal_loss_and_gradient([x], near, k, 0.25, 2.0)
results["close together"] = focal_loss_and_gradient([x.contiguous()], near, k, 0.25, 2.0)

# Through autograd, on levels and on a convolution.
leaves = [x.clone().requires_grad_() for x in levels]
loss = sigmoid_focal_loss(leaves, labels, k, kernel="triton")
(loss / 3).backward()
results["autograd"] = loss.detach(), [x.grad for x in leaves]
weight = torch.eye(levels[0].shape[1])[:, :, None, None]
results["convolution"] = conv_focal_loss(
    levels, weight, None, labels, k, kernel="triton", max_chunk_bytes=2000
)
torch.save(results, sys.argv[1])
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    """What the interpreted kernel makes of every case."""
    path = str(tmp_path_factory.mktemp("triton") / "cases.pt")
    torch.save((CASES, (*problem(), K)), path)
    done = subprocess.run(
        [sys.executable, "-c", INTERPRET, path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr
    return torch.load(path)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_chunked_kernel(results, name):
    levels, labels, *rest = CASES[name]
    exact = [x.double() for x in levels]
    expected, gradients = chunked.focal_loss_and_gradient(exact, labels, *rest)
    loss, found = results[name]
    half = levels[0].dtype.itemsize < 4
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-7)
    assert loss.dtype == (torch.float32 if levels[0].dtype != torch.float64 else torch.float64)
    assert len(found) == len(gradients)
    for got, wanted, level in zip(found, gradients, levels, strict=False):
        assert got.dtype == level.dtype
        torch.testing.assert_close(
            got.double(), wanted, rtol=1e-2 if half else 2e-6, atol=1e-6 if half else 1e-12
        )


def test_channels_last_logits_give_channels_last_gradients(results):
    _, gradients = results["channels_last"]
    assert gradients[0].is_contiguous(memory_format=torch.channels_last)


def test_offsets_beyond_32_bits(results):
    (loss, (gradient,)), (expected, (right,)) = results["far apart"], results["close together"]
    assert loss == expected
    assert torch.equal(gradient, right)


def test_through_autograd_and_the_fused_convolution(results):
    levels, labels = problem()
    leaves = [x.requires_grad_() for x in levels]
    loss = sigmoid_focal_loss(leaves, labels, K, kernel="reference")
    (loss / 3).backward()
    got, gradients = results["autograd"]
    torch.testing.assert_close(got, loss.detach())
    torch.testing.assert_close(results["convolution"], loss.detach())
    for gradient, leaf in zip(gradients, leaves, strict=True):
        torch.testing.assert_close(gradient, leaf.grad)


# What Triton makes constants of at a launch, because it is 1, differs from case to case.
@pytest.mark.parametrize(
    ("capability", "dtype", "power", "channels_last", "wide", "with_gradient", "ones"),
    [
        (75, "fp32", 2, False, False, True, ["location_stride", "label_stride"]),
        (80, "bf16", -1, True, True, True, ["channel_stride", "num_anchors"]),
        (90, "fp16", 0, False, False, False, ["num_classes", "num_anchors", "num_rows"]),
    ],
)
def test_compiles_for_gpus(
    monkeypatch, tmp_path, capability, dtype, power, channels_last, wide, with_gradient, ones
):
    # The interpreter runs much that the compiler refuses. Compiling needs no GPU.
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from retinanet_ext.losses.kernels.triton_focal import (
        CLASSES_PER_PROGRAM,
        INTERPRETED,
        TILE,
        _focal_kernel,
    )

    if INTERPRETED:
        pytest.skip("TRITON_INTERPRET=1 in the environment: there is no compiler in this process")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    rows, classes = TILE[channels_last]
    constants = {
        "POWER": power,
        "CHANNELS_LAST": channels_last,
        "WIDE": wide,
        "WITH_GRADIENT": with_gradient,
        "ROWS": rows,
        "CLASSES": classes,
        "CLASSES_PER_PROGRAM": CLASSES_PER_PROGRAM[channels_last],
        **dict.fromkeys(ones, 1),
    }
    names = _focal_kernel.arg_names
    types = dict.fromkeys(names, "i32")
    types.update(logits="*" + dtype, gradient="*" + dtype, labels="*i64", partial_sums="*fp32")
    types.update(dict.fromkeys(("negative_weight", "positive_weight", "gamma", "scale"), "fp32"))
    types.update(dict.fromkeys(constants, "constexpr"))
    positions = {(names.index(name),): value for name, value in constants.items()}
    compiled = triton.compile(
        ASTSource(_focal_kernel, types, positions),
        target=GPUTarget("cuda", capability, 32),
        options={"enable_fp_fusion": True},
    )
    assert ".entry _focal_kernel" in compiled.asm["ptx"]
