"""Weight gradients by half of Winograd's algorithm against those of the direct convolution."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F

from retinanet_ext.modeling.speedups import winograd, winograd_weights

LAST = torch.channels_last


def random_case(n: int = 2, c: int = 16, d: int = 24, h: int = 21, w: int = 34):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, c, h, w, generator=generator)
    return x, torch.randn(n, d, h, w, generator=generator)


def exact_gradient(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    weight = torch.zeros(gradient.shape[1], x.shape[1], 3, 3, dtype=torch.float64)
    weight.requires_grad_()
    convolved = F.conv2d(x.double(), weight, padding=1)
    return torch.autograd.grad(convolved, weight, gradient.double())[0]


def assert_equals_the_direct_one(x: torch.Tensor, gradient: torch.Tensor) -> None:
    exact = exact_gradient(x, gradient)
    got = winograd_weights.weight_gradient(x, gradient)
    assert got.shape == exact.shape and got.is_contiguous()
    assert (got.double() - exact).norm() <= 3e-6 * exact.norm()


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 7), (2, 3), (5, 9), (6, 6), (7, 5), (12, 64), (13, 8), (20, 33), (30, 4)]
)
def test_any_map_size(size: tuple[int, int]):
    assert_equals_the_direct_one(*random_case(h=size[0], w=size[1]))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("formats", [(LAST, LAST), (torch.contiguous_format, LAST)])
def test_any_batch_and_memory_format(n: int, formats):
    pair = [t.contiguous(memory_format=f) for t, f in zip(random_case(n), formats, strict=True)]
    assert_equals_the_direct_one(*pair)


def test_no_image_gives_zeros():
    assert not winograd_weights.weight_gradient(*random_case(n=0)).any()


@pytest.mark.parametrize("rows_at_a_time", [1, 2, 3])
def test_rows_may_be_taken_in_several_steps(monkeypatch, rows_at_a_time: int):
    numbers = rows_at_a_time * 8 * 34 * (16 + 24)
    monkeypatch.setattr(winograd_weights, "MAX_NUMBERS", numbers)
    assert_equals_the_direct_one(*random_case(h=40))


@pytest.mark.parametrize("threads", [1, 2, 3, 6])
@pytest.mark.parametrize("n", [1, 3])
def test_threads_share_the_work(threads: int, n: int):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, gradient = random_case(n)
        assert_equals_the_direct_one(x.requires_grad_(), gradient)
    finally:
        torch.set_num_threads(before)


def test_registration_is_sound():
    names = ("test_schema", "test_faketensor")
    operator = winograd_weights.weight_gradient
    found = torch.library.opcheck(operator, random_case(n=1, h=9, w=8), test_utils=names)
    assert found == dict.fromkeys(names, "SUCCESS")


@pytest.mark.parametrize(("capability", "expected"), [("AVX512", True), ("AVX2", False)])
def test_is_chosen_with_avx512_for_large_maps_of_many_channels(
    monkeypatch, capability: str, expected: bool
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)

    def chosen(c=256, d=256, h=100):
        x = torch.empty(1, c, h, 132)
        return winograd_weights.is_faster(x, torch.empty(1, d, h, 132))

    with torch.no_grad():
        assert chosen() == expected
        assert not chosen(c=128) and not chosen(d=36) and not chosen(h=25)
    assert not chosen()  # to be differentiated again


@pytest.mark.skipif(not winograd.is_available(), reason="this machine has no NNPACK")
@pytest.mark.parametrize("again", [False, True])
def test_the_convolutions_backward_uses_it_unless_it_is_differentiated(monkeypatch, again: bool):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(winograd_weights, "MIN_CHANNELS", 16)
    monkeypatch.setattr(winograd_weights, "MIN_LOCATIONS", 1)
    noting = Mock(wraps=winograd_weights.weight_gradient)
    monkeypatch.setattr(winograd_weights, "weight_gradient", noting)
    x, gradient = random_case()
    weight = torch.zeros(24, 16, 3, 3, requires_grad=True)
    convolved = winograd.conv3x3(x, weight, None)
    (got,) = torch.autograd.grad(convolved, [weight], gradient, create_graph=again)
    exact = exact_gradient(x, gradient)
    assert (got.double() - exact).norm() <= 1e-5 * exact.norm()
    assert noting.call_count == (not again)
