"""Packed weights are small, come back nearly as they were, and read as any others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retinanet_ext.weights.packed import SCALES_KEY, pack, unpack
from retinanet_ext.weights.reading import WeightsError, read_torch, read_weights


def some_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "conv.weight": torch.randn(8, 16, 3, 3) * torch.logspace(-3, 3, 8)[:, None, None, None],
        "depthwise.weight": torch.randn(8, 1, 5, 5),
        "zero.weight": torch.zeros(2, 4, 1, 1),
        "norm.running_var": torch.full((8,), 1e-9),
        "count": torch.tensor(3),
    }


def test_a_packed_kernel_is_off_by_half_a_step_of_its_channel_at_most():
    weights = some_weights()
    packed = pack(weights)
    assert packed["model"]["conv.weight"].dtype == torch.int8
    assert packed["model"]["depthwise.weight"].dtype == torch.float16
    found = unpack(packed)["model"]
    assert found.keys() == weights.keys()
    steps = weights["conv.weight"].abs().amax(dim=(1, 2, 3)) / 127
    off = (found["conv.weight"] - weights["conv.weight"]).abs().amax(dim=(1, 2, 3))
    assert (off <= steps * 0.501).all() and (off > 0).all()
    torch.testing.assert_close(
        found["depthwise.weight"], weights["depthwise.weight"], rtol=1e-3, atol=1e-6
    )
    for name in ("zero.weight", "norm.running_var", "count"):
        assert torch.equal(found[name], weights[name]), name
    assert all(x.dtype == torch.float32 for k, x in found.items() if k != "count")


def test_the_file_is_a_quarter_and_reads_as_any_other(tmp_path: Path):
    weights = {"conv.weight": torch.randn(64, 64, 3, 3)}
    torch.save({"model": weights}, tmp_path / "whole.pth")
    torch.save({**pack(weights), "thing_classes": ["a"]}, tmp_path / "packed.pth")
    sizes = {name: (tmp_path / f"{name}.pth").stat().st_size for name in ("whole", "packed")}
    assert sizes["packed"] < 0.27 * sizes["whole"]
    content = read_weights(tmp_path / "packed.pth")
    assert content.keys() == {"model", "thing_classes"}
    torch.testing.assert_close(
        content["model"]["conv.weight"], weights["conv.weight"], rtol=0, atol=0.03
    )


def test_a_file_without_scales_is_left_as_it_is():
    content = {"model": {"x": torch.ones(2, dtype=torch.float16)}}
    assert unpack(content) is content


@pytest.mark.parametrize("scale", [torch.ones(3), 2.0, None])
def test_scales_that_fit_no_tensor_are_an_error(tmp_path: Path, scale: object):
    kernel = torch.ones(8, 16, 3, 3, dtype=torch.int8)
    torch.save({"model": {"a": kernel}, SCALES_KEY: {"a": scale}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth' is no file of weights, or broken: .*'a'"):
        read_torch(str(tmp_path / "a.pth"))
