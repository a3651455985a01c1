"""Winograd's convolution against the direct one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

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
    assert not chosen(h=13, w=17)
    assert not chosen(k=1)
    assert not chosen(dtype=torch.float64)
    assert not chosen(device="meta")
    with torch.autocast("cpu", torch.bfloat16):
        assert not chosen()
