"""Winograd's convolution against the direct one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retinanet_ext.compat import nnpack_convolution
from retinanet_ext.modeling.speedups import winograd

pytestmark = pytest.mark.skipif(
    not winograd.is_available(), reason="this PyTorch or this machine has no NNPACK"
)


def random_case(n: int = 2, c: int = 16, d: int = 24, h: int = 21, w: int = 34):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, c, h, w, generator=generator)
    weight = torch.randn(d, c, 3, 3, generator=generator) / (9 * c) ** 0.5
    bias = torch.randn(d, generator=generator)
    return [t.requires_grad_() for t in (x, weight, bias)]


def assert_as_close_as_rounding(got: torch.Tensor, exact: torch.Tensor) -> None:
    # The transforms of 8x8 tiles add numbers of alternating sign: ten times direct rounding.
    assert (got.double() - exact).abs().max() <= 1e-4 * exact.abs().mean()


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_direct_convolution(n: int, memory_format: torch.memory_format):
    x, weight, bias = random_case(n)
    x = x.detach().contiguous(memory_format=memory_format)
    weight = weight.detach().contiguous(memory_format=memory_format)
    got = winograd.conv3x3(x, weight, bias)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert got.shape == exact.shape
    if n:
        assert_as_close_as_rounding(got, exact)


@pytest.mark.parametrize("size", [(3, 3), (6, 7), (8, 64)])
def test_any_map_size(size: tuple[int, int]):
    x, weight, _ = random_case(h=size[0], w=size[1])
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    assert_as_close_as_rounding(winograd.conv3x3(x, weight, None), exact)


def test_gradients_equal_those_of_direct_convolution():
    arguments = random_case()
    upstream = torch.randn(2, 24, 21, 34, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(winograd.conv3x3(*arguments), arguments, upstream)
    exact = torch.autograd.grad(
        F.conv2d(*(t.double() for t in arguments), padding=1), arguments, upstream.double()
    )
    for ours, theirs in zip(got, exact, strict=True):
        assert_as_close_as_rounding(ours, theirs.double())


def test_only_wanted_gradients_are_made():
    x, weight, bias = random_case()
    (gradient,) = torch.autograd.grad(winograd.conv3x3(x, weight.detach(), None).sum(), [x])
    assert gradient.shape == x.shape
    winograd.conv3x3(x.detach(), weight, bias).sum().backward()
    assert x.grad is None and weight.grad is not None and bias.grad is not None


def test_registration_is_sound():
    x, weight, bias = random_case(n=1, c=4, d=5, h=9, w=8)
    names = ("test_schema", "test_autograd_registration", "test_faketensor")
    found = torch.library.opcheck(winograd.conv3x3, (x, weight, bias), test_utils=names)
    assert found == dict.fromkeys(names, "SUCCESS")


def test_is_chosen_for_large_maps_of_many_channels_only():
    def chosen(c=256, h=100, w=132, k=3, dtype=torch.float32, device="cpu"):
        x = torch.empty(1, c, h, w, dtype=dtype, device=device)
        return winograd.is_faster(x, torch.empty(256, c, k, k, dtype=dtype, device=device))

    assert chosen()
    assert not chosen(c=64)
    # oneDNN is as fast where it has AVX-512 and several threads, unless there is much to do.
    several = winograd.has_avx512() and torch.get_num_threads() > 1
    assert chosen(c=96, h=50, w=66) is not several
    assert not chosen(h=13, w=17)
    assert not chosen(k=1)
    assert not chosen(dtype=torch.float64)
    assert not chosen(device="meta")
    with torch.autocast("cpu", torch.bfloat16):
        assert not chosen()


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("inference", [False, True])
def test_threads_change_no_bit(n: int, threads: int, inference: bool):
    x, weight, bias = random_case(n, d=72, h=101, w=19)
    whole = torch.cat([nnpack_convolution(i, weight, bias, padding=1) for i in x.split(1)])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode(inference):
            got = winograd.conv3x3(x.contiguous(memory_format=torch.channels_last), weight, bias)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(got, whole)
    assert got.is_contiguous()


@pytest.mark.parametrize("outputs", [1, 40, 720])
@pytest.mark.parametrize("height", [1, 30, 200])
@pytest.mark.parametrize("threads", [1, 2, 6, 64])
@pytest.mark.parametrize("n", [1, 3])
def test_pieces_cover_everything_once(n: int, threads: int, height: int, outputs: int):
    seen = torch.zeros(n, outputs, height)
    for image, channels, rows in winograd._pieces(torch.empty(n, 1, height, 1), outputs, threads):
        seen[image, channels, rows] += 1
        assert channels.start < channels.stop and rows.start < rows.stop
    assert (seen == 1).all()


@pytest.mark.parametrize("much", [False, True])
def test_only_much_work_changes_how_openmp_waits(monkeypatch, much: bool):
    asked = []
    monkeypatch.setattr(winograd, "let_openmp_wait_briefly", lambda: asked.append(1))
    monkeypatch.setattr(winograd, "MUCH_WORK", 2 * 16 * 24 * 21 * 34 if not much else 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        winograd.conv3x3(*random_case())
    finally:
        torch.set_num_threads(before)
    assert asked == [1] * much
