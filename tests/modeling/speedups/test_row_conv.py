"""Products of gathered rows by oneDNN and by MKL: the convolution at a few locations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet_ext.modeling.speedups import pointwise
from retinanet_ext.modeling.speedups import row_conv as rows_module
from retinanet_ext.modeling.speedups.row_conv import LINE, row_conv

CHANNELS, OUTPUTS, SIDE = 24, 20, 30


@pytest.fixture(params=["oneDNN", "MKL"])
def by(request, monkeypatch) -> str:
    monkeypatch.setattr(pointwise, "has_avx512", lambda: request.param == "oneDNN")
    return request.param


def whole_map(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A map of which every location is computed, as rows; kernel, bias, and the two tables."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SIDE * SIDE, CHANNELS, generator=generator, dtype=dtype)
    weight = torch.randn(OUTPUTS, CHANNELS, 3, 3, generator=generator, dtype=dtype)
    bias = torch.randn(OUTPUTS, generator=generator, dtype=dtype)
    index = F.pad(torch.arange(SIDE * SIDE).view(SIDE, SIDE), (1, 1, 1, 1), value=SIDE * SIDE)
    sources = index.unfold(0, 3, 1).unfold(1, 3, 1).reshape(-1, 9)
    return x, weight, bias, sources, sources.flip(1)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    maps = x.t().view(1, CHANNELS, SIDE, SIDE)
    return F.conv2d(maps, weight, bias, padding=1)[0].flatten(1).t()


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("chunk", [1024, 16 * LINE + 5, 40])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_and_gradients_are_those_of_the_convolution(by, monkeypatch, biased, chunk, threads):
    monkeypatch.setattr(rows_module, "CHUNK_ROWS", chunk)
    x, weight, bias, sources, readers = whole_map(torch.float32)
    given = [t.requires_grad_() for t in ((x, weight, bias) if biased else (x, weight))]
    doubled = [t.detach().double().requires_grad_() for t in given]
    bias = bias if biased else None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = row_conv(x, weight, bias, sources, readers)
        seeds = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad(found, given, seeds)
    finally:
        torch.set_num_threads(before)
    expected = reference(*doubled[:2], doubled[2] if biased else None)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    wanted = torch.autograd.grad(expected, doubled, seeds.double())
    for got, exact in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=2e-4)


def test_only_float32_in_lines_of_enough_rows_is_given_to_onednn(monkeypatch):
    monkeypatch.setattr(pointwise, "has_avx512", lambda: True)
    many = torch.zeros(16 * LINE + 3, 8)
    assert rows_module._whole_lines(many) == 16 * LINE
    assert rows_module._whole_lines(many[: 16 * LINE - 1]) == 0
    assert rows_module._whole_lines(many.double()) == 0
    assert rows_module._whole_lines(many.to("meta")) == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert rows_module._whole_lines(many) == 0
    monkeypatch.setattr(pointwise, "has_avx512", lambda: False)
    assert rows_module._whole_lines(many) == 0


def test_onednn_is_asked_for_all_three_products(monkeypatch):
    monkeypatch.setattr(pointwise, "has_avx512", lambda: True)
    lines, as_images = [], rows_module._as_images
    monkeypatch.setattr(rows_module, "_as_images", lambda x: lines.append(len(x)) or as_images(x))
    x, weight, bias, sources, readers = whole_map(torch.float32)
    out = row_conv(x.requires_grad_(), weight.requires_grad_(), bias, sources, readers)
    assert lines == [SIDE * SIDE - SIDE * SIDE % LINE]
    out.sum().backward()
    assert len(lines) == 4  # the rows of the input's gradient, and both sides of the kernel's
