"""Each speedup gives the numbers of the plain network and leaves the state dict alone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from retinanet_ext import validate_cfg
from retinanet_ext.modeling.speedups import sparse_tower, winograd
from retinanet_ext.modeling.speedups.settings import (
    FastConv2d,
    FastNormConv2d,
    Speedups,
    best_autocast,
    best_channels_last,
    scale_and_shift,
)
from tests.helpers.tiny import tiny_cfg

PLAIN = {
    "FOLD_FROZEN_BN": False,
    "WINOGRAD": False,
    "SPARSE_BOX_SUBNET": False,
    "CHANNELS_LAST": "none",
}


def small_cfg(**speedups):
    chosen = {f"MODEL.SPEEDUPS.{key}": x for key, x in {**PLAIN, **speedups}.items()}
    usual = {
        "MODEL.BACKBONE.FREEZE_AT": 2,
        "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [32.0, 64.0, 128.0, 256.0, 512.0],
        "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE": 3,
    }
    return tiny_cfg(keys={**usual, **chosen}, NUM_CONVS=4)


def build(**speedups):
    torch.manual_seed(0)
    model = build_model(small_cfg(**speedups))
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):  # fresh ones do nothing
            for buffer in (module.weight, module.running_var):
                buffer.uniform_(0.5, 1.0, generator=generator)
            for buffer in (module.bias, module.running_mean):
                buffer.normal_(std=0.1, generator=generator)
    return model


def make_batch() -> list[dict]:
    generator = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (3, 96, 128), generator=generator, dtype=torch.uint8)
    boxes = Boxes(torch.tensor([[10.0, 10, 50, 60], [30.0, 20, 120, 90]]))
    gt = Instances((96, 128), gt_boxes=boxes, gt_classes=torch.tensor([0, 2]))
    return [{"image": image, "instances": gt, "height": 96, "width": 128}]


def outcome(model):
    """Losses, gradients, and the head's output for one batch."""
    batch = make_batch()
    model.train()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.eval()
    with torch.no_grad():
        images = model.preprocess_image(batch)
        features = model.backbone(images.tensor)
        logits, deltas = model.head([features[name] for name in model.head_in_features])
    return losses, gradients, [*logits, *deltas]


def assert_same(got, expected, tolerance: float) -> None:
    def close(a, b):
        assert (a - b).abs().max() <= tolerance * b.abs().max() + 1e-12

    assert got[0].keys() == expected[0].keys() and got[1].keys() == expected[1].keys()
    for ours, plain in zip(got[:2], expected[:2], strict=True):
        for name in plain:
            close(ours[name], plain[name])
    for ours, plain in zip(got[2], expected[2], strict=True):
        close(ours, plain)


@pytest.mark.parametrize(
    "speedups", [{"FOLD_FROZEN_BN": True}, {"CHANNELS_LAST": "all"}, {"CHANNELS_LAST": "backbone"}]
)
def test_gives_the_numbers_of_the_plain_network(speedups: dict):
    # In float64, where rounding cannot hide a mistake.
    assert_same(outcome(build(**speedups).double()), outcome(build().double()), 1e-9)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_box_subnet_at_positives_gives_the_numbers_of_the_plain_network(monkeypatch, share):
    monkeypatch.setattr(sparse_tower, "MAX_SHARE", share)
    sparse, whole = build(SPARSE_BOX_SUBNET=True).double(), build().double()
    calls = []
    spy(monkeypatch, sparse.head.bbox_pred, calls)
    expected = outcome(whole)
    got = outcome(sparse)
    assert_same(got, expected, 1e-9)
    in_training = len(calls) - len(got[2]) // 2  # the rest is inference
    assert in_training == (0 if share else 5)


def test_the_callers_autocast_gets_whole_convolutions(monkeypatch):
    monkeypatch.setattr(sparse_tower, "MAX_SHARE", 1.0)
    model = build(SPARSE_BOX_SUBNET=True).train()
    expected = model(make_batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(make_batch())
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=0.05)


def spy(monkeypatch, module: nn.Module, calls: list) -> None:
    """Note the calls of ``module`` by its class: who watches the module itself changes its path."""
    forward = type(module).forward

    def spied(self, x):
        if self is module:
            calls.append(x.shape)
        return forward(self, x)

    monkeypatch.setattr(type(module), "forward", spied)


def test_winograd_gives_the_numbers_of_the_plain_network(monkeypatch):
    if not winograd.is_available():
        pytest.skip("this PyTorch or this machine has no NNPACK")
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 16)
    monkeypatch.setattr(winograd, "MIN_LOCATIONS", 1)
    monkeypatch.setattr(winograd, "MUCH_WORK", 1)
    exact = outcome(build().double())
    fast, plain = outcome(build(WINOGRAD=True)), outcome(build())
    assert not torch.equal(fast[2][0], plain[2][0]), "Winograd's algorithm did not run"
    assert_same(fast, exact, 1e-3)


@pytest.mark.slow
def test_compiled_network_gives_the_same_numbers(monkeypatch):
    if winograd.is_available():  # its operator takes part in the graph
        monkeypatch.setattr(winograd, "MIN_CHANNELS", 4)
        monkeypatch.setattr(winograd, "MIN_LOCATIONS", 1)
        monkeypatch.setattr(winograd, "MUCH_WORK", 1)
    torch.manual_seed(0)
    norm = FrozenBatchNorm2d(4)
    norm.running_mean.normal_()
    network = nn.Sequential(Conv2d(3, 4, 1, norm=norm), nn.Conv2d(4, 4, 3, padding=1))
    compiled = copy.deepcopy(network)
    Speedups(compile=True).prepare(compiled)
    assert compiled._compiled_call_impl is not None
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
    compiled(x).square().sum().backward(), network(x).square().sum().backward()
    torch.testing.assert_close(
        compiled[0].weight.grad, network[0].weight.grad, rtol=1e-4, atol=1e-5
    )


def test_state_dict_is_untouched_and_follows_changes():
    fast, plain = build(FOLD_FROZEN_BN=True, CHANNELS_LAST="all"), build()
    assert list(fast.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(fast.state_dict()[name], value), name
    torch.manual_seed(5)
    for value in plain.state_dict().values():
        value.mul_(1.0 + 0.1 * torch.rand(value.shape))
    fast.load_state_dict(plain.state_dict())
    assert_same(outcome(fast.double()), outcome(plain.double()), 1e-9)


def test_only_plain_convolutions_change():
    class Special(nn.Conv2d):
        pass

    network = nn.Sequential(nn.Conv2d(3, 4, 1), Special(4, 4, 1), Conv2d(4, 4, 1))
    Speedups().prepare(network)
    assert [type(layer) for layer in network] == [FastConv2d, Special, FastNormConv2d]


@pytest.mark.parametrize("has_bias", [False, True])
def test_norms_that_learn_are_not_folded(has_bias: bool):
    torch.manual_seed(0)
    conv = Conv2d(3, 4, 3, padding=1, bias=has_bias, norm=nn.BatchNorm2d(4), activation=torch.tanh)
    fast = copy.deepcopy(conv)
    Speedups().prepare(fast)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(fast(x), conv(x))
    torch.testing.assert_close(fast.norm.running_mean, conv.norm.running_mean)


def test_frozen_norm_folds_beside_a_bias():
    torch.manual_seed(0)
    norm = FrozenBatchNorm2d(4)
    norm.running_mean.normal_()
    norm.weight.normal_()
    conv = Conv2d(3, 4, 3, norm=norm)
    fast = copy.deepcopy(conv)
    Speedups().prepare(fast)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(fast(x), conv(x))


def test_kept_constants_follow_every_change_of_the_norm():
    norm = FrozenBatchNorm2d(4)
    conv = Conv2d(3, 4, 1, norm=norm)
    Speedups().prepare(conv)

    def kept() -> list[torch.Tensor]:
        buffers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        found = conv._kept_constants(norm, buffers)
        for got, expected in zip(found, scale_and_shift(norm), strict=True):
            assert torch.equal(got, expected)
        return list(found)

    first = kept()
    assert kept()[0] is first[0]
    for buffer in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        buffer.add_(1.0)
        kept()
    norm.load_state_dict(FrozenBatchNorm2d(4).state_dict())
    kept()
    norm.weight = torch.full((4,), 3.0)
    kept()
    conv.double()
    assert kept()[0].dtype == torch.float64
    with torch.inference_mode():
        norm.bias.add_(1.0)
        found = kept()
    assert not found[0].is_inference()


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [("cpu", (0, 0), "backbone"), ("cuda", (7, 5), "none"), ("cuda", (8, 0), "all")],
)
def test_channels_last_is_what_the_device_is_fast_in(monkeypatch, device, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert best_channels_last(torch.device(device)) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx512_bf16": True, "avx2": True}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"avx512_f": True, "avx512_vnni": True, "avx512_bf16": False, "amx_int8": True}, ""),
        ({"avx2": True}, ""),
        ({}, ""),
    ],
)
def test_autocast_is_bfloat16_where_the_cpu_computes_with_it(monkeypatch, flags, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert best_autocast(torch.device("cpu")) == expected


def test_a_pytorch_that_does_not_know_the_flags_computes_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert best_autocast(torch.device("cpu")) == ""


def test_autocast_auto_is_float32_in_training_and_evaluation(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert build(AUTOCAST="auto").speedups.autocast == ""


def test_model_can_be_copied_and_pickled():
    model = build(FOLD_FROZEN_BN=True, COMPILE=True)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(other.state_dict()) == list(model.state_dict())
        assert other.head._compiled_call_impl is None


def test_autocast_runs_the_network_in_bfloat16_and_losses_in_float32():
    model = build(AUTOCAST="bfloat16")
    seen = {}
    model.head.register_forward_hook(lambda *args: seen.update(dtype=args[2][0][0].dtype))
    losses, gradients, _ = outcome(model)
    assert seen["dtype"] == torch.float32  # outside of the detector's forward, plain float32
    model.train()
    with EventStorage():
        losses = model(make_batch())
    assert seen["dtype"] == torch.bfloat16
    expected, expected_gradients, _ = outcome(build())
    for name, value in expected.items():
        assert losses[name].dtype == torch.float32
        assert losses[name].item() == pytest.approx(value.item(), rel=0.05)
    assert all(g.dtype == torch.float32 for g in gradients.values())
    assert gradients.keys() == expected_gradients.keys()
    model.eval()
    with torch.no_grad():
        assert model(make_batch())[0]["instances"].scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("key", "value"),
    [("CHANNELS_LAST", "on"), ("COMPILE_MODE", "fast"), ("AUTOCAST", "float8")],
)
def test_unknown_choice_is_refused_by_name(key: str, value: str):
    with pytest.raises(ValueError, match=rf"MODEL\.SPEEDUPS\.{key} is '{value}'.*set it to one of"):
        validate_cfg(small_cfg(**{key: value}))


def test_channels_last_auto_is_for_the_backbone_on_the_cpu():
    model = build(CHANNELS_LAST="auto")
    assert model.speedups.channels_last == "backbone"
    cfg = small_cfg(CHANNELS_LAST="auto")
    cfg.MODEL.DEVICE = "cuda"
    assert Speedups.from_cfg(cfg).channels_last == "none"


@pytest.mark.parametrize("where", ["none", "backbone", "all"])
def test_channels_last_reaches_the_kernels_it_names(where: str):
    def is_channels_last(conv):
        return conv.weight.is_contiguous(memory_format=torch.channels_last)

    model = build(CHANNELS_LAST=where)
    images = model.preprocess_image(make_batch()).tensor
    assert images.is_contiguous(memory_format=torch.channels_last) == (where != "none")
    assert is_channels_last(model.backbone.fpn_output3) == (where != "none")
    assert is_channels_last(model.head.cls_score) == (where == "all")
