"""1x1 convolutions by oneDNN on one thread."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from retinanet_ext.modeling.speedups import pointwise
from retinanet_ext.modeling.speedups.settings import Speedups

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


@pytest.fixture
def one_thread_with_avx512(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_case(n: int = 2, c: int = 40, d: int = 24, h: int = 21, w: int = 34):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, c, h, w, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(d, c, 1, 1, generator=generator) / c**0.5
    return x, weight, torch.randn(d, generator=generator)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_equals_the_plain_convolution_with_its_gradients(n: int, biased: bool, last: bool):
    x, weight, bias = random_case(n)
    arguments = [x if last else x.contiguous(), weight, *([bias] if biased else [])]
    arguments = [t.requires_grad_() for t in arguments]
    doubles = [t.detach().double().requires_grad_() for t in arguments]
    got = pointwise.conv1x1(*arguments[:2], arguments[2] if biased else None)
    exact = F.conv2d(*doubles)
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(exact)
    ours = torch.autograd.grad(got, arguments, upstream.float())
    for mine, theirs in zip(ours, torch.autograd.grad(exact, doubles, upstream), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=2e-4)


def test_channels_lie_innermost_and_onednn_computes(one_thread_with_avx512):
    x, weight, bias = random_case()
    for given in (x.contiguous(), x):
        got = pointwise.conv1x1(given, weight, bias)
        assert got.is_contiguous(memory_format=torch.channels_last)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        pointwise.conv1x1(x, weight, bias)
    names = {event.key for event in profile.key_averages()}
    assert "aten::mkldnn_convolution" in names and "aten::_slow_conv2d_forward" not in names


def test_what_it_puts_out_may_be_changed_in_place_and_differentiated_twice():
    x, weight, bias = random_case()
    for tensor in (arguments := (x, weight, bias)):
        tensor.requires_grad_()

    def twice(convolve):
        loss = convolve(*arguments).relu_().square().sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        return first, *torch.autograd.grad(first.square().sum(), arguments)

    for got, expected in zip(twice(pointwise.conv1x1), twice(F.conv2d), strict=True):
        assert (got - expected).norm() <= 1e-5 * expected.norm()


def test_is_chosen_on_one_thread_for_large_maps_only(one_thread_with_avx512):
    def chosen(n=1, h=40, w=40, k=1, dtype=torch.float32, device="cpu"):
        x = torch.empty(n, 64, h, w, dtype=dtype, device=device)
        return pointwise.is_faster(x, torch.empty(32, 64, k, k, dtype=dtype, device=device))

    assert chosen()
    assert not chosen(w=8)
    assert not chosen(h=12, w=100)
    assert not chosen(n=16)
    assert not chosen(k=3)
    assert not chosen(dtype=torch.float64)
    assert not chosen(device="meta")
    with torch.autocast("cpu", torch.bfloat16):
        assert not chosen()
    torch.set_num_threads(2)
    assert not chosen()


@pytest.mark.parametrize(("capability", "expected"), [("AVX512", True), ("AVX2", False)])
def test_the_cpu_decides(one_thread_with_avx512, monkeypatch, capability: str, expected: bool):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    x, weight, _ = random_case()
    assert pointwise.is_faster(x, weight) == expected


@pytest.mark.parametrize(
    "case", ["plain", "stride", "padding", "groups", "off", "contiguous", "tracing"]
)
def test_modules_use_it_where_the_geometry_fits(one_thread_with_avx512, monkeypatch, case: str):
    geometry = {"stride": {"stride": 2}, "padding": {"padding": 1}, "groups": {"groups": 2}}
    conv = nn.Conv2d(40, 24, 1, **geometry.get(case, {}))
    x = random_case()[0]
    exact = conv(x)
    Speedups(pointwise=case != "off").prepare(conv, channels_last=case != "contiguous")
    noting = Mock(wraps=pointwise.conv1x1)
    monkeypatch.setattr(pointwise, "conv1x1", noting)
    got = torch.jit.trace(conv, x, check_trace=False)(x) if case == "tracing" else conv(x)
    torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-5)
    assert noting.call_count == (case == "plain")


def test_an_exported_program_has_standard_operators_only(one_thread_with_avx512):
    conv = nn.Conv2d(40, 24, 1)
    Speedups().prepare(conv, channels_last=True)
    program = torch.export.export(nn.Sequential(conv), (random_case()[0],))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names == ["aten.conv2d.default"]
